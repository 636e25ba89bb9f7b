from pathlib import Path

import pytest

from optimizer.errors import PassError
from optimizer.passes import PASSES
from tests import models
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import Bench, bench

REFUSED = [
    ("int8_dynamic", graphs.cnn(), "98% of its arithmetic is in 2 convolutions"),
    ("int8_dynamic", graphs.scaler(), "no float weights"),
    ("int8_static", graphs.scaler(), "no float weights"),
    ("int8_static", graphs.recurrent(), "no float weights in Conv, MatMul or Gemm"),
    ("weight_only", graphs.recurrent(), "no float weights in MatMul or Gemm"),
    ("mixed_precision", graphs.doubled_identities(), "no float weights"),
    ("openvino_ir", graphs.scaler(), "ai.onnx.ml"),
    ("openvino_ir", models.identity("BYTES"), "'x' holds strings"),
    ("openvino_weights_int8", graphs.doubled_identities(), "no float weights"),
    ("int8_smoothquant", graphs.scaler(), "no float weights"),
    ("fp16", graphs.scaler(), "ai.onnx.ml have no half precision"),
]


@pytest.mark.parametrize(("name", "model", "reason"), REFUSED)
def test_refuses_with_the_reason(name: str, model: bytes, reason: str, tmp_path: Path) -> None:
    place = bench(tmp_path, model)
    assert reason in PASSES[name].requires(place.model)
    with pytest.raises(PassError, match=f"{name} cannot be applied"):
        place.apply(name)


@pytest.mark.parametrize(
    "name", ["int8_dynamic", "int8_static", "weight_only", "fp16", "mixed_precision"]
)
def test_what_is_quantized_is_not_quantized_again(name: str, tmp_path: Path) -> None:
    made = bench(tmp_path, graphs.dense()).apply("int8_dynamic").file
    assert PASSES[name].requires(made) == "it is quantized already"


@pytest.mark.parametrize("name", ["openvino_weights_int8", "int8_smoothquant"])
def test_nncf_does_not_quantize_again_either(name: str, tmp_path: Path) -> None:
    made = bench(tmp_path, graphs.dense()).apply("int8_static", rows=graphs.table()).file
    assert PASSES[name].requires(made) == "it is quantized already"


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("openvino_ir", {"compress": "int3"}, "compress is 'int3'"),
        ("openvino_weights_int8", {"mode": "odd"}, "mode is 'odd'"),
        ("int8_static", {"method": "magic"}, "method is 'magic', expected one of minmax"),
        ("mixed_precision", {"base": "fp16"}, "base is 'fp16', expected one of int8_dynamic"),
        ("mixed_precision", {"base": "int8_dynamic"}, "98% of its arithmetic"),
        ("weight_only", {"bits": 3}, "bits is 3"),
        ("weight_only", {"method": "awq"}, "method is 'awq'"),
        ("weight_only", {"method": "gptq"}, "gptq is for 4 bits, got 8"),
        ("weight_only", {"block": 24}, "block is 24"),
    ],
)
def test_settings_are_checked(
    name: str, settings: dict[str, object], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(PassError, match=reason):
        bench(tmp_path, graphs.cnn()).apply(name, settings, graphs.images())


def test_an_operator_that_openvino_lacks_ends_the_pass(tmp_path: Path) -> None:
    place: Bench = bench(tmp_path, models.unknown_operator())
    with pytest.raises(PassError, match=r"OpenVINO .*Frobnicate"):
        place.apply("openvino_ir")
