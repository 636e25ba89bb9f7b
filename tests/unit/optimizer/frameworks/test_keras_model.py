"""TensorFlow is more than a gigabyte: `make test-all` installs it."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer.errors import SourceError
from optimizer.example_inputs import Recipe, make
from optimizer.frameworks import load_native, save_native
from optimizer.source import SourceModel, source_of
from protos.tensors import Array

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
    ),
    pytest.mark.filterwarnings("ignore"),  # TensorFlow's own, of its imports and its arrays
]

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "image_classifier": ({"input_layer": ("batch", 8, 8, 1)}, {"output": ("batch", 10)}),
    "two_in_two_out": (
        {"right": ("batch", 4), "left": ("batch", 4)},
        {"score": ("batch", 2), "output_1": ("batch", 1)},
    ),
    "by_key": (
        {"left": ("batch", 4), "right": ("batch", 4)},
        {"difference": ("batch", 4), "sum": ("batch", 4)},
    ),
    "recurrent": ({"steps": ("batch", "sequence", 5)}, {"output": ("batch", 3)}),
    "attention": ({"tokens": ("batch", "sequence", 16)}, {"embedding": ("batch", 3)}),
    "called_sequential": ({"input_layer": ("batch", 3)}, {"output": ("batch", 2)}),
}


def built(name: str) -> Any:
    from optimizer.frameworks.tensorflow_import import keras
    from tests.unit.optimizer.keras_models import BUILDERS

    keras.utils.clear_session()  # counts the names of layers from the beginning
    return BUILDERS[name]()


def rows(source: SourceModel, count: int) -> dict[str, Array]:
    return make(load_native(source).signature, Recipe(sequence=7), count)


@pytest.mark.parametrize("name", CASES)
def test_keras_file_keeps_names_and_answers(name: str, tmp_path: Path) -> None:
    model = built(name)
    source = save_native(model, tmp_path)
    assert source == SourceModel(tmp_path / "model.keras", "tensorflow")
    native = load_native(source)
    assert {spec.name: spec.shape for spec in native.signature.inputs} == CASES[name][0]
    assert {spec.name: spec.shape for spec in native.signature.outputs} == CASES[name][1]
    inputs = rows(source, 5)
    given = next(iter(inputs.values())) if len(inputs) == 1 else inputs
    expected = model(given, training=False)
    if not isinstance(expected, dict):
        answers = expected if isinstance(expected, list) else [expected]
        expected = dict(zip(CASES[name][1], answers, strict=True))
    found = native.predict(inputs)
    assert list(found) == [spec.name for spec in native.signature.outputs]
    for key, answer in expected.items():
        np.testing.assert_allclose(found[key], answer.numpy(), atol=1e-6, err_msg=key)


def test_softmax_tells_a_classifier(tmp_path: Path) -> None:
    assert load_native(save_native(built("image_classifier"), tmp_path)).task == "classification"
    assert load_native(save_native(built("recurrent"), tmp_path)).task == "other"


def test_batch_of_a_model_with_a_state_is_fixed(tmp_path: Path) -> None:
    signature = load_native(save_native(built("with_a_state"), tmp_path)).signature
    assert [spec.shape for spec in (*signature.inputs, *signature.outputs)] == [(4, 5, 3), (4, 2)]


def test_class_of_the_users_own_becomes_a_saved_model(tmp_path: Path) -> None:
    model = built("of_own_class")
    source = save_native(model, tmp_path)
    assert source == source_of(tmp_path / "model") == SourceModel(tmp_path / "model", "tensorflow")
    native = load_native(source)
    (inputs,), (output,) = native.signature.inputs, native.signature.outputs
    assert (inputs.shape, output.name, output.shape) == (("batch", 4), "output_0", ("batch", 3))
    x = np.random.default_rng(0).random((3, 4), np.float32)
    answer = native.predict({inputs.name: x})["output_0"]
    np.testing.assert_allclose(answer, model(x).numpy(), atol=1e-6)


def test_saved_model_of_texts_runs(tmp_path: Path) -> None:
    from optimizer.frameworks.tensorflow_import import tf

    class Lengths(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "text")])  # type: ignore[untyped-decorator]
        def lengths(self, text: Any) -> Any:
            return {"length": tf.strings.length(text), "upper": tf.strings.upper(text)}

    module = Lengths()
    tf.saved_model.save(module, str(tmp_path / "texts"), signatures=module.lengths)
    native = load_native(source_of(tmp_path / "texts"))
    assert [spec.datatype for spec in native.signature.outputs] == ["INT32", "BYTES"]
    answers = native.predict({"text": np.array([b"abc", b"d"], object)})
    assert answers["length"].tolist() == [3, 1]
    assert answers["upper"].tolist() == [b"ABC", b"D"]


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    model = built("of_own_class")
    model.save(tmp_path / "own.keras")
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no archive")
    with pytest.raises(SourceError, match=r"broken\.keras' cannot be loaded by TensorFlow"):
        load_native(source_of(broken))
    with pytest.raises(SourceError, match=r"own\.keras' cannot be loaded .*'OfOwnClass'"):
        load_native(source_of(tmp_path / "own.keras"))
