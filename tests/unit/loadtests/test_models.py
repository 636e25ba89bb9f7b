from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from loadtests.models import BUILDERS, write_repository
from protos.tensors import Array


def run(model: bytes, inputs: Mapping[str, Array]) -> Array:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    output: Array = session.run(None, dict(inputs))[0]
    return output


@pytest.mark.parametrize(
    ("name", "inputs", "shape"),
    [
        ("tiny", {"x": np.ones((3, 16), np.float32)}, (3, 4)),
        ("mlp", {"x": np.ones((3, 256), np.float32)}, (3, 10)),
        ("embedding", {"ids": np.array([[1, 2], [999, 0]])}, (2, 2, 32)),
    ],
)
def test_small_models_are_valid_and_answer(
    name: str, inputs: dict[str, Array], shape: tuple[int, ...]
) -> None:
    model = BUILDERS[name]()
    onnx.checker.check_model(model, full_check=True)
    answer = run(model, inputs)
    assert answer.shape == shape
    assert np.isfinite(answer).all()


def test_models_are_the_same_every_time_and_differ_by_seed() -> None:
    assert BUILDERS["tiny"]() == BUILDERS["tiny"]()
    assert BUILDERS["tiny"](1) != BUILDERS["tiny"]()


def test_embedding_fails_outside_its_table() -> None:
    with pytest.raises(Exception, match="out of data bounds"):
        run(BUILDERS["embedding"](), {"ids": np.array([[1000]])})


def test_sentence_model_ignores_what_its_mask_hides() -> None:
    model = BUILDERS["minilm"]()
    short = {"input_ids": np.array([[7, 8]]), "attention_mask": np.array([[1, 1]])}
    padded = {"input_ids": np.array([[7, 8, 9]]), "attention_mask": np.array([[1, 1, 0]])}
    np.testing.assert_allclose(run(model, short), run(model, padded), atol=1e-5)


def test_repository_has_a_version_of_each_model(tmp_path: Path) -> None:
    write_repository(tmp_path, ["tiny", "mlp"])
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.onnx"))
    assert found == ["mlp/1/model.onnx", "tiny/1/model.onnx"]
