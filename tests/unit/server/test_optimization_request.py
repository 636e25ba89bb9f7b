import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimizer.data import DataSpec
from optimizer.goal import TECHNIQUES
from server.errors import InvalidRequest
from server.model_config import DataConfig, ModelConfig, OptimizationConfig
from server.optimization_request import (
    DataPlaces,
    Dataset,
    Machine,
    OptimizationRequest,
    configured_print,
    data_spec,
    goal,
    quantizing,
)
from server.settings import ServeSettings

MACHINE = Machine(threads=2, memory_mb=1000)


@pytest.mark.parametrize(
    ("method", "precision", "names"),
    [
        ("static", "int8", {"int8_static", "int8_smoothquant", "mixed_precision"}),
        ("dynamic", "int8", {"int8_dynamic", "weight_only_int8"}),
        ("dynamic", "int4", {"weight_only_int4"}),
        ("", "int4", {"weight_only_int4"}),
        ("dynamic", "", {"int8_dynamic", "weight_only_int8", "weight_only_int4"}),
    ],
)
def test_quantization_is_narrowed_by_method_and_precision(
    method: Any, precision: Any, names: set[str]
) -> None:
    request = OptimizationRequest("m", techniques=("graph", "quantization"))
    assert request.named_techniques() == ("graph", "quantization")
    narrowed = OptimizationRequest(
        "m", techniques=("graph", "quantization"), method=method, precision=precision
    )
    assert set(narrowed.named_techniques()) == {"graph", *names}
    alone = OptimizationRequest("m", method=method, precision=precision)
    others = set(TECHNIQUES) - set(quantizing("", ""))
    assert set(alone.named_techniques()) == others | names


def test_the_techniques_of_quantization_are_those_of_the_optimizer() -> None:
    assert set(quantizing("", "")) <= set(TECHNIQUES)
    left = set(TECHNIQUES) - set(quantizing("", ""))
    assert left == {"onnx_conversion", "graph", "threads", "fp16", "bf16", "tensorrt", "native"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"techniques": ("int8_dinamic",)}, "techniques: unknown technique 'int8_dinamic'"),
        ({"techniques": ("pruning",)}, "techniques: technique 'pruning' is not available"),
        ({"method": "often"}, 'method: expected one of "dynamic", "static", got "often"'),
        ({"precision": "int3"}, 'precision: expected one of "int8", "int4", got "int3"'),
        ({"method": "static", "precision": "int4"}, '"int4" needs the method "dynamic"'),
        (
            {"techniques": ("graph",), "method": "static"},
            'quantization: needs "quantization" among the techniques',
        ),
        ({"metric": "bleu"}, 'metric: expected one of "auto"'),
        ({"objective": "mix"}, 'objective: expected one of "latency", "throughput"'),
        ({"accuracy_threshold": 1.5}, "accuracy_threshold: expected a ratio from 0 to 1, got 1.5"),
        ({"accuracy_threshold": math.nan}, "accuracy_threshold: expected a ratio"),
        ({"time_limit_s": 0.0}, "time limit: expected more than 0, got 0 s"),
        ({"time_limit_s": math.nan}, "time limit: expected more than 0"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        OptimizationRequest("m", **fields)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "s3"}, 'source: expected one of "file", "sql", "live", got "s3"'),
        ({"source": "file"}, 'path: source "file" needs the path of a file'),
        ({"source": "sql"}, 'query: source "sql" needs a SELECT'),
        ({"source": "sql", "query": "q", "path": "x"}, 'path: belongs to source "file"'),
        ({"source": "live", "query": "q"}, 'query: belongs to source "sql"'),
        ({"source": "file", "path": "x", "database": "d"}, 'database: belongs to source "sql"'),
    ],
)
def test_a_dataset_says_one_thing(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        Dataset(**fields)
    assert str(error.value).startswith("validation_dataset.")
    assert message in str(error.value)


def test_what_a_request_leaves_open_is_as_configured() -> None:
    settings = ServeSettings(
        optimization_accuracy_threshold=0.95,
        optimization_max_time_minutes=2,
        onnx_opset_version=18,
        tensorrt_workspace_size_gb=1,
    )
    config = OptimizationConfig(techniques=("graph",), metric="f1", lossless_only=True)
    wanted = goal(OptimizationRequest("m"), config, settings, MACHINE)
    assert (wanted.techniques, wanted.metric, wanted.lossless_only) == (("graph",), "f1", True)
    assert (wanted.accuracy_threshold, wanted.time_limit_s) == (0.95, 120)
    assert (wanted.opset, wanted.workspace_gb) == (18, 1)
    assert (wanted.threads, wanted.memory_limit_mb) == (2, 1000)
    assert (wanted.max_batch, wanted.batch_sizes) == (64, (1, 16, 32, 64))


def test_what_a_request_says_counts_up_to_the_servers_time_limit() -> None:
    config = OptimizationConfig(techniques=("graph",), accuracy_threshold=0.9, lossless_only=True)
    request = OptimizationRequest(
        "m",
        techniques=("bf16",),
        accuracy_threshold=0.0,
        metric="top1",
        lossless_only=False,
        objective="throughput",
        is_quick=True,
        time_limit_s=60,
    )
    wanted = goal(request, config, ServeSettings(), MACHINE, is_batched=False)
    assert (wanted.techniques, wanted.accuracy_threshold) == (("bf16",), 0.0)
    assert (wanted.metric, wanted.lossless_only, wanted.objective) == ("top1", False, "throughput")
    assert (wanted.is_quick, wanted.time_limit_s) == (True, 60)
    assert (wanted.max_batch, wanted.batch_sizes) == (1, (1,))
    for_ever = OptimizationRequest("m", time_limit_s=math.inf)
    assert goal(for_ever, config, ServeSettings(), MACHINE).time_limit_s == 1800


@pytest.fixture
def places(tmp_path: Path) -> DataPlaces:
    for name in ("models/m/rows.npz", "models/n/rows.csv", "shared/x.npz", "secret/x.npz"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "models/m/link.npz").symlink_to(tmp_path / "secret/x.npz")
    allowed = [tmp_path / "models", tmp_path / "shared"]
    return DataPlaces(tmp_path / "models/m", allowed, {"default": "sqlite:///x", "b": "sqlite://"})


def spec(places: DataPlaces, **dataset: str) -> DataSpec | None:
    request = OptimizationRequest("m", dataset=Dataset(**dataset))  # type: ignore[arg-type]
    return data_spec(request, DataConfig(), places)


@pytest.mark.parametrize("path", ["rows.npz", "../n/rows.csv", "{root}/shared/x.npz"])
def test_files_of_the_repository_and_of_allowed_folders_may_be_named(
    places: DataPlaces, tmp_path: Path, path: str
) -> None:
    found = spec(places, source="file", path=path.format(root=tmp_path), labels="y")
    assert found is not None
    assert (found.source, found.labels) == ("file", "y")
    assert found.path is not None
    assert found.path.is_file()


@pytest.mark.parametrize(
    "path",
    [
        "../../secret/x.npz",
        "{root}/secret/x.npz",
        "{root}/secret/not there",
        "/etc/passwd",
        "link.npz",
        "{root}/shared/../secret/x.npz",
        "{root}/models2/x",
        "x\0y",
    ],
)
def test_no_other_file_may_be_named_nor_asked_about(
    places: DataPlaces, tmp_path: Path, path: str
) -> None:
    with pytest.raises(InvalidRequest, match=r"^validation_dataset.path: ") as error:
        spec(places, source="file", path=path.format(root=tmp_path))
    assert "no such file" not in str(error.value)


@pytest.mark.parametrize(("path", "problem"), [("x" * 300, "no such file"), ("x" * 2000, "2000")])
def test_a_path_may_be_too_long(places: DataPlaces, path: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        spec(places, source="file", path=path)


def test_a_file_that_is_not_there_is_named(places: DataPlaces) -> None:
    with pytest.raises(InvalidRequest, match=r"'none\.npz': no such file"):
        spec(places, source="file", path="none.npz")
    bare = DataPlaces(None, places.allowed)
    with pytest.raises(InvalidRequest, match="this model has none"):
        spec(bare, source="file", path="rows.npz")


def test_connections_are_those_that_the_operator_named(places: DataPlaces) -> None:
    found = spec(places, source="sql", query="SELECT 1")
    assert found is not None
    assert (found.database, found.query) == ("default", "SELECT 1")
    named = spec(places, source="sql", query="SELECT 1", database="b", labels="y")
    assert named is not None
    assert (named.database, named.labels) == ("b", "y")
    with pytest.raises(InvalidRequest, match="no connection 'c', the operator named b, default"):
        spec(places, source="sql", query="SELECT 1", database="c")


def test_without_a_word_the_models_configuration_counts(places: DataPlaces) -> None:
    request = OptimizationRequest("m")
    assert data_spec(request, DataConfig(), places) is None
    anywhere = DataConfig("file", Path("/elsewhere/x.npz"), None, "y")
    found = data_spec(request, anywhere, places)
    assert found is not None
    assert (found.path, found.labels) == (Path("/elsewhere/x.npz"), "y")
    live = OptimizationRequest("m", dataset=Dataset("live"))
    assert data_spec(live, anywhere, places) is None


def test_a_configuration_that_asks_for_something_else_has_another_print(tmp_path: Path) -> None:
    rows = tmp_path / "rows.npz"
    rows.write_bytes(b"rows")
    config = ModelConfig("m", data=DataConfig("file", rows))
    settings = ServeSettings()
    prints = [configured_print(config, settings)]
    assert configured_print(replace(config, origin="elsewhere"), settings) == prints[0]
    for asked in (
        OptimizationConfig(techniques=("graph",)),
        OptimizationConfig(accuracy_threshold=0.5),
        OptimizationConfig(metric="top1"),
        OptimizationConfig(lossless_only=True),
    ):
        prints.append(configured_print(replace(config, optimization=asked), settings))
    for data in (
        DataConfig(),
        DataConfig("file", rows, labels="y"),
        DataConfig("sql", query="SELECT 1"),
    ):
        prints.append(configured_print(replace(config, data=data), settings))
    rows.write_bytes(b"other rows")
    prints.append(configured_print(config, settings))
    rows.unlink()
    prints.append(configured_print(config, settings))
    assert len(set(prints)) == len(prints)
