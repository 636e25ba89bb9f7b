from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from optimizer.errors import SourceError
from optimizer.frameworks import load_native, save_native
from optimizer.frameworks.contract import NativeModel
from optimizer.frameworks.torch_model import load_program
from optimizer.source import SourceModel
from protos.tensors import DTYPES, Array
from tests.unit.optimizer import torch_modules as modules

Shapes = Mapping[str, tuple[str, tuple[int | str, ...]]]


def floats(*shape: int) -> Array:
    return np.random.default_rng(0).random(shape, np.float32)


def shapes(model: NativeModel) -> tuple[Shapes, Shapes]:
    inputs, outputs = (
        {spec.name: (spec.datatype, spec.shape) for spec in specs}
        for specs in (model.signature.inputs, model.signature.outputs)
    )
    return inputs, outputs


CASES: dict[str, tuple[nn.Module, Any, Shapes, Shapes]] = {
    "a lone array, names of a Sequential": (
        nn.Sequential(nn.Linear(4, 3), nn.Dropout()),
        floats(1, 4),
        {"input": ("FP32", ("batch", 4))},
        {"output": ("FP32", ("batch", 3))},
    ),
    "arrays by parameter, nested outputs": (
        modules.Nested(),
        {"x": floats(2, 4), "scale": floats(2, 1)},
        {"x": ("FP32", ("batch", 4)), "scale": ("FP32", ("batch", 1))},
        {
            "linear": ("FP32", ("batch", 3)),
            "both_0": ("FP32", ("batch",)),
            "both_1": ("INT64", ("batch",)),
            "x_out": ("FP32", ("batch", 4)),
        },
    ),
    "a named tuple": (
        modules.Statistics(),
        [floats(3, 5)],
        {"x": ("FP32", ("batch", 5))},
        {"mean": ("FP32", ("batch",)), "deviation": ("FP32", ("batch",))},
    ),
    "a sequence of vectors": (
        modules.Classifier(),
        torch.rand(1, 6, 8),
        {"steps": ("FP32", ("batch", "sequence", 8))},
        {"output": ("FP32", ("batch", 3))},
    ),
    "token ids and a mask": (
        modules.TokenMean(),
        {"ids": np.ones((1, 5), np.int64), "mask": np.ones((1, 5), np.int64)},
        {"ids": ("INT64", ("batch", "sequence")), "mask": ("INT64", ("batch", "sequence"))},
        {"embedding": ("FP32", ("batch", 4))},
    ),
    "a length after the channels": (
        modules.Waves(),
        floats(2, 3, 20),
        {"signal": ("FP32", ("batch", 3, "length_2"))},
        {"output": ("FP32", ("batch", 2))},
    ),
    "short floats": (
        modules.Halves(),
        [np.ones((2, 3), DTYPES["BF16"]), floats(2, 3)],
        {"x": ("BF16", ("batch", 3)), "y": ("FP32", ("batch", 3))},
        {
            "output_0": ("BF16", ("batch", 3)),
            "output_1": ("FP16", ("batch", 3)),
            "output_2": ("BOOL", ("batch", 3)),
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_module_becomes_a_program_with_variable_batch_and_length(case: str, tmp_path: Path) -> None:
    module, example, inputs, outputs = CASES[case]
    source = save_native(module, tmp_path, example)
    assert source == SourceModel(tmp_path / "model.pt2", "torch")
    model = load_native(source)
    assert shapes(model) == (inputs, outputs)
    assert load_program(source.path)[1] == ()


def test_answers_are_those_of_the_module_at_any_size(tmp_path: Path) -> None:
    module = modules.TokenMean().eval()
    example = {name: np.ones((2, 5), np.int64) for name in ("ids", "mask")}
    model = load_native(save_native(module, tmp_path, example))
    for rows, length in ((1, 1), (1, 9), (7, 2)):
        ids = np.random.default_rng(rows).integers(0, 100, (rows, length))
        mask = np.ones((rows, length), np.int64)
        (answer,) = module(torch.from_numpy(ids), torch.from_numpy(mask)).values()
        found = model.predict({"mask": mask, "ids": ids})
        np.testing.assert_allclose(found["embedding"], answer.detach().numpy(), atol=1e-6)


def test_read_only_and_strided_arrays_are_taken(tmp_path: Path) -> None:
    model = load_native(save_native(modules.Halves(), tmp_path, [floats(2, 3), floats(2, 3)]))
    x = np.asfortranarray(floats(4, 3))
    x.setflags(write=False)
    answer = model.predict({"x": x, "y": x[::-1] - 1})
    np.testing.assert_array_equal(answer["output_0"], x * 2)
    assert answer["output_1"].dtype == np.float16
    assert not answer["output_2"].any()


def test_bfloat16_keeps_its_bits(tmp_path: Path) -> None:
    x = np.array([[1.0, -2.5, 3.0e37]], DTYPES["BF16"])
    model = load_native(save_native(modules.Halves(), tmp_path, [x, floats(1, 3)]))
    answer = model.predict({"x": x, "y": floats(1, 3)})["output_0"]
    assert answer.dtype == DTYPES["BF16"]
    np.testing.assert_array_equal(answer.view(np.uint16), (x * x.dtype.type(2)).view(np.uint16))


def test_what_the_forward_fixes_stays_fixed_and_is_noted(tmp_path: Path) -> None:
    source = save_native(modules.Recurrent(), tmp_path, floats(2, 6, 4))
    assert shapes(load_native(source))[0] == {"x": ("FP32", ("batch", 6, 4))}
    assert load_program(source.path)[1] == (
        "input 'x': the length stays at 6, the forward fixes it",
    )


def test_fixed_batch_is_noted_with_its_reason(tmp_path: Path) -> None:
    source = save_native(modules.PairsOnly(), tmp_path, floats(2, 3))
    assert shapes(load_native(source))[0] == {"x": ("FP32", (2, 3))}
    (note,) = load_program(source.path)[1]
    assert note.startswith("input 'x': the batch stays at 2: ")


def test_module_keeps_its_mode(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Dropout()).train()
    save_native(module, tmp_path, floats(2, 4))
    assert module.training
    assert module[1].training


def test_softmax_tells_a_classifier(tmp_path: Path) -> None:
    assert load_native(save_native(modules.Classifier(), tmp_path, floats(2, 4, 8))).task == (
        "classification"
    )
    assert load_native(save_native(modules.Waves(), tmp_path, floats(2, 3, 9))).task == "other"


def test_program_of_the_users_own_is_loaded_and_saved(tmp_path: Path) -> None:
    program = torch.export.export(
        modules.Waves().eval(),
        (torch.zeros(2, 3, 9),),
        dynamic_shapes=({0: torch.export.Dim("rows")},),
    )
    torch.export.save(program, tmp_path / "own.pt2")
    expected = {"signal": ("FP32", ("batch", 3, 9))}
    assert shapes(load_native(SourceModel(tmp_path / "own.pt2", "torch")))[0] == expected
    assert shapes(load_native(save_native(program, tmp_path)))[0] == expected


def test_typical_rows_use_as_much_of_a_vocabulary_as_there_is(tmp_path: Path) -> None:
    example = {name: np.ones((1, 5), np.int64) for name in ("ids", "mask")}
    model = load_native(save_native(modules.TokenMean(), tmp_path, example))
    samples = model.typical_rows(512, seed=3)
    assert not samples.is_real
    assert samples.inputs["ids"].max() in range(80, 100)
    assert set(samples.inputs["mask"].ravel()) == {0, 1}
    np.testing.assert_array_equal(
        model.typical_rows(512, seed=3).inputs["ids"], samples.inputs["ids"]
    )


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"Depends cannot be exported: .*data-dependent"):
        save_native(modules.Depends(), tmp_path, floats(2, 3))
    with pytest.raises(SourceError, match="needs an example of its inputs"):
        save_native(modules.Waves(), tmp_path)
    broken = tmp_path / "broken.pt2"
    broken.write_bytes(b"not a zip file")
    with pytest.raises(SourceError, match=r"broken\.pt2' is no exported program"):
        load_native(SourceModel(broken, "torch"))
