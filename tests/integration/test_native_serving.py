"""Models of training frameworks, served as they are by a real server; and artifacts."""

import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas
import pytest
import skops.io
import xgboost
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from client import Client
from optimizer.artifact import Artifact
from tests import models
from tests.integration.server_process import serving, write_models

X, Y = (np.asarray(array) for array in load_iris(return_X_y=True))
X = X.astype(np.float32)
TABLE = pandas.DataFrame({"colour": np.array(["red", "green", "blue"])[Y], "size": X[:, 0]})
FRAMEWORKS = ("sklearn", "xgboost", "lightgbm", "torch", "scipy", "pandas")


def trained() -> dict[str, Any]:
    mixed = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["colour"]), remainder="passthrough"
    )
    return {
        "neighbours": KNeighborsClassifier().fit(X, Y),
        "linear": LogisticRegression(max_iter=1000).fit(X, Y),
        "mixed": make_pipeline(mixed, Ridge()).fit(TABLE, X[:, 1]),
        "xgb": xgboost.XGBClassifier(n_estimators=5).fit(X, Y),
        "lgbm": lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(X, Y),
    }


TRAINED = trained()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("server")
    files = {f"{name}/1/model.pkl": pickle.dumps(TRAINED[name]) for name in ("neighbours", "mixed")}
    write_models(folder / "models", files | {"stored/1/model.onnx": models.mlp()})
    for name in ("linear", "xgb", "lgbm", "stored/2"):
        (folder / "models" / name).mkdir(parents=True, exist_ok=True)
    skops.io.dump(TRAINED["linear"], folder / "models/linear/model.skops")
    TRAINED["xgb"].save_model(folder / "models/xgb/model.json")
    TRAINED["lgbm"].booster_.save_model(folder / "models/lgbm/model.txt")
    skops.io.dump(TRAINED["linear"], folder / "models/stored/2/x.skops")
    Artifact(folder / "models/stored/2", "x.skops", "native", "mine-1").write()
    with serving(folder, "--allow-pickle") as address, Client(address, timeout_s=60.0) as client:
        yield client


def children_of(process: int) -> list[int]:
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for text in lists for child in text.read_text().split()]


def server_process() -> int:
    (found,) = (
        child
        for child in children_of(os.getpid())
        if b"serve\0" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    return found


@pytest.mark.parametrize("name", ["neighbours", "linear", "xgb"])
def test_a_classifier_answers_as_it_does_at_home(server: Client, name: str) -> None:
    answer = server.predict(name, {"X": X[::10]})
    np.testing.assert_array_equal(answer["label"], TRAINED[name].predict(X[::10]))
    expected = TRAINED[name].predict_proba(X[::10])
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-5, atol=1e-6)


def test_a_booster_answers_as_it_does_at_home(server: Client) -> None:
    expected = TRAINED["lgbm"].predict_proba(X[::10])
    answer = server.predict("lgbm", {"X": X[::10]})
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-5)


def test_a_table_of_texts_and_numbers_is_taken(server: Client) -> None:
    colours = TABLE["colour"].to_numpy(dtype=object)[:, None]
    answer = server.predict("mixed", {"colour": colours, "size": X[:, :1]})
    expected = TRAINED["mixed"].predict(TABLE)
    np.testing.assert_allclose(answer["prediction"].ravel(), expected, rtol=1e-4)


def test_an_artifact_in_a_version_folder_is_served(server: Client) -> None:
    prediction = server.infer("stored", {"X": X[:5]})
    assert (prediction.version, prediction.served_by) == (2, "mine-1")
    expected = TRAINED["linear"].predict(X[:5])
    np.testing.assert_array_equal(prediction.outputs["label"], expected)


def test_the_server_itself_holds_no_framework(server: Client) -> None:
    assert server.predict("neighbours", {"X": X[:1]})["label"].tolist() == [0]
    maps = Path(f"/proc/{server_process()}/maps").read_text()
    assert "/grpc/" in maps
    assert [name for name in FRAMEWORKS if f"/{name}/" in maps] == []


def test_children_are_no_less_important_than_the_server(server: Client) -> None:
    process = server_process()
    own = os.getpriority(os.PRIO_PROCESS, process)
    children = children_of(process)
    assert len(children) >= 6
    assert {os.getpriority(os.PRIO_PROCESS, child) for child in children} == {own}


def test_a_killed_child_costs_what_it_ran_and_nothing_else(server: Client) -> None:
    killed = children_of(server_process())
    for child in killed:
        os.kill(child, signal.SIGKILL)
    for name in ("neighbours", "linear", "xgb"):
        for attempt in range(3):
            answer = server.predict(name, {"X": X[:2]})
            assert answer["label"].tolist() == [0, 0], attempt
    assert not set(killed) & set(children_of(server_process()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_network_answers_as_it_does_at_home(tmp_path: Path) -> None:
    import torch

    from optimizer.frameworks import save_native

    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    (tmp_path / "models/net/1").mkdir(parents=True)
    save_native(network.eval(), tmp_path / "models/net/1", X[:2])
    with torch.no_grad():
        expected = network(torch.from_numpy(X[:20])).numpy()
    with serving(tmp_path) as address, Client(address, timeout_s=60.0) as client:
        (version,) = client.model("net").versions
        answer = client.predict("net", {version.inputs[0].name: X[:20]})
        np.testing.assert_allclose(next(iter(answer.values())), expected, rtol=1e-4, atol=1e-6)
