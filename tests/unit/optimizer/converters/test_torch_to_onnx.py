from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from optimizer.converters import convert
from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.converters.parity import ensure_same
from optimizer.errors import ConversionError, SourceError
from optimizer.example_inputs import Recipe, make
from optimizer.frameworks import load_native, save_native
from optimizer.frameworks.contract import NativeModel
from optimizer.source import SourceModel
from protos.tensors import Array
from server.backends.opener import open_artifact
from tests.unit.optimizer import torch_modules as modules


def floats(*shape: int) -> Array:
    return np.random.default_rng(0).random(shape, np.float32)


def converted(
    module: nn.Module, example: Any, folder: Path, opset: int = 18
) -> tuple[NativeModel, ConverterResult]:
    source = save_native(module, folder, example)
    result = convert(ConverterInput(source, folder / "model.onnx", opset))
    return load_native(source), result


CASES: dict[str, tuple[nn.Module, Any]] = {
    "nested outputs": (modules.Nested(), {"x": floats(2, 4), "scale": floats(2, 1)}),
    "an output that is called like an operator": (
        modules.TokenMean(),
        {name: np.ones((1, 5), np.int64) for name in ("ids", "mask")},
    ),
    "a transformer": (modules.Classifier(), floats(1, 6, 8)),
    "a recurrence": (modules.Recurrent(), floats(2, 6, 4)),
    "a fixed batch": (modules.PairsOnly(), floats(2, 4)),
    "batch normalization": (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5)),
        floats(1, 1, 8, 8),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_converted_model_answers_as_the_original_under_its_names(case: str, tmp_path: Path) -> None:
    native, result = converted(*CASES[case], tmp_path)
    session = ort.InferenceSession(result.file, providers=["CPUExecutionProvider"])
    signature = native.signature
    assert [(i.name, tuple(i.shape)) for i in session.get_inputs()] == [
        (spec.name, spec.shape) for spec in signature.inputs
    ]
    assert [(o.name, tuple(o.shape)) for o in session.get_outputs()] == [
        (spec.name, spec.shape) for spec in signature.outputs
    ]
    has_batch = signature.inputs[0].shape[0] == "batch"
    assert ensure_same(native, result.file, open_artifact, None).is_same
    for rows, length in ((1, 3), (5, 7)):
        inputs = make(signature, Recipe(sequence=length), rows if has_batch else None)
        answers = native.predict(inputs)
        for (name, answer), found in zip(answers.items(), session.run(None, inputs), strict=True):
            assert found.dtype == answer.dtype, name
            np.testing.assert_allclose(found, answer, rtol=1e-5, atol=1e-5, err_msg=name)


def test_file_holds_nothing_stale_and_no_paths(tmp_path: Path) -> None:
    _, result = converted(*CASES["batch normalization"], tmp_path)
    model = onnx.load(result.file)
    onnx.checker.check_model(model, full_check=True)
    weights = {weight.name for weight in model.graph.initializer}
    assert {value.name for value in model.graph.value_info} <= weights
    assert str(Path(__file__).parent).encode() not in result.file.read_bytes()


def test_opset_is_the_nearest_that_the_exporter_makes_and_notes_say_so(tmp_path: Path) -> None:
    _, result = converted(modules.Recurrent(), floats(2, 6, 4), tmp_path, opset=17)
    assert result.opset == 18
    assert {o.domain: o.version for o in onnx.load(result.file).opset_import}[""] == 18
    assert result.notes == (
        "input 'x': the length stays at 6, the forward fixes it",
        "opset 17 asked, 18 made: PyTorch's exporter makes 18 to 23",
    )


def test_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    converted(nn.Linear(4, 3), floats(2, 4), tmp_path, opset=23)
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


def test_operator_without_an_onnx_form_is_named(tmp_path: Path) -> None:
    class Eigenvalues(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            values: torch.Tensor = torch.linalg.eigvalsh(x)
            return values

    with pytest.raises(ConversionError, match=r"model\.pt2' cannot be exported: .*linalg_eigh"):
        converted(Eigenvalues(), floats(2, 4, 4), tmp_path)


def test_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="is no exported program"):
        convert(ConverterInput(SourceModel(path, "torch"), tmp_path / "model.onnx", 17))
