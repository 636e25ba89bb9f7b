"""TensorFlow is more than a gigabyte: `make test-all` installs it."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from optimizer.converters import convert
from optimizer.converters.contract import ConverterInput
from optimizer.converters.parity import ensure_same
from optimizer.errors import ConversionError
from optimizer.example_inputs import Recipe, make
from optimizer.frameworks import load_native, save_native
from optimizer.source import SourceModel, source_of
from server.backends.opener import open_artifact

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
    ),
    pytest.mark.filterwarnings("ignore"),  # TensorFlow's own, of its imports and its arrays
]


def built(name: str) -> Any:
    from tests.unit.optimizer.keras_models import BUILDERS

    return BUILDERS[name]()


def exported(name: str, folder: Path) -> SourceModel:
    built(name).export(folder / "exported", verbose=False)
    return source_of(folder / "exported")


@pytest.mark.parametrize("is_saved_model", [False, True], ids=["keras", "saved model"])
@pytest.mark.parametrize(
    "name",
    ["image_classifier", "two_in_two_out", "by_key", "recurrent", "attention", "of_own_class"],
)
def test_converted_model_answers_as_the_original_under_its_names(
    name: str, is_saved_model: bool, tmp_path: Path
) -> None:
    source = exported(name, tmp_path) if is_saved_model else save_native(built(name), tmp_path)
    result = convert(ConverterInput(source, tmp_path / "model.onnx", 17))
    assert (result.opset, result.notes) == (17, ())
    onnx.checker.check_model(onnx.load(result.file), full_check=True)
    native = load_native(source)
    session = ort.InferenceSession(result.file, providers=["CPUExecutionProvider"])
    assert [(i.name, tuple(i.shape)) for i in session.get_inputs()] == [
        (spec.name, spec.shape) for spec in native.signature.inputs
    ]
    assert [(o.name, tuple(o.shape)) for o in session.get_outputs()] == [
        (spec.name, spec.shape) for spec in native.signature.outputs
    ]
    assert ensure_same(native, result.file, open_artifact, None).is_same
    for rows, length in ((1, 3), (6, 9)):
        inputs = make(native.signature, Recipe(sequence=length), rows)
        answers = native.predict(inputs)
        for (key, answer), found in zip(answers.items(), session.run(None, inputs), strict=True):
            np.testing.assert_allclose(found, answer, atol=1e-5, err_msg=key)


def test_exact_gelu_is_mended(tmp_path: Path) -> None:
    source = save_native(built("image_classifier"), tmp_path)
    result = convert(ConverterInput(source, tmp_path / "model.onnx", 17))
    operators = {node.op_type for node in onnx.load(result.file).graph.node}
    assert "Erf" in operators
    assert "Erfc" not in operators


@pytest.mark.parametrize(("asked", "made"), [(11, 13), (13, 13), (18, 18), (20, 18)])
def test_opset_is_the_nearest_that_tf2onnx_makes(asked: int, made: int, tmp_path: Path) -> None:
    source = save_native(built("two_in_two_out"), tmp_path)
    result = convert(ConverterInput(source, tmp_path / "model.onnx", asked))
    assert result.opset == made
    assert {o.domain: o.version for o in onnx.load(result.file).opset_import}[""] == made
    assert bool(result.notes) == (asked != made)


def test_operator_without_an_onnx_form_is_named(tmp_path: Path) -> None:
    from optimizer.frameworks.tensorflow_import import tf

    class Inverse(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None, 3, 3), tf.float32, "x")])  # type: ignore[untyped-decorator]
        def inverse(self, x: Any) -> Any:
            return {"y": tf.linalg.cholesky(x)}

    module = Inverse()
    tf.saved_model.save(module, str(tmp_path / "own"), signatures=module.inverse)
    with pytest.raises(ConversionError, match=r"own' cannot be exported: .*Cholesky"):
        convert(ConverterInput(source_of(tmp_path / "own"), tmp_path / "model.onnx", 17))
