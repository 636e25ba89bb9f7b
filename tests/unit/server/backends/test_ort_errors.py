"""Texts of ONNX Runtime, as people get to see them."""

import pytest

from server.backends.ort_errors import plain_text, unsupported_type

TEXTS = {
    "broadcast": (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Mul node."
        " Name:'/encoder/Mul' Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/math/"
        "element_wise_ops.h:583 void onnxruntime::BroadcastIterator::Append(ptrdiff_t, ptrdiff_t)"
        " axis == 1 || axis == largest was false. Attempting to broadcast an axis by a dimension"
        " other than 1. 3 by 4\n",
        "operator Mul: axis == 1 || axis == largest was false. Attempting to broadcast an axis by a"
        " dimension other than 1. 3 by 4",
    ),
    "memory": (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Expand node."
        " Name:'' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360"
        " void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*)"
        " Failed to allocate memory for requested buffer of size 4398046511104",
        "operator Expand: Failed to allocate memory for requested buffer of size 4398046511104",
    ),
    "template": (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Dropout node."
        " Name:'' Status Message: /onnxruntime_src/core/providers/cpu/nn/dropout_op.h:48"
        " float onnxruntime::{anonymous}::GetRatioOrDefault(const onnxruntime::Tensor*) [with T2 ="
        " float] 0.0f <= ratio_value && ratio_value < 1.0f was false.",
        "operator Dropout: 0.0f <= ratio_value && ratio_value < 1.0f was false.",
    ),
    "dimensions": (
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: x for the"
        " following indices\n index: 1 Got: 17 Expected: 16\n Please fix either the inputs/outputs"
        " or the model.",
        "Got invalid dimensions for input: x for the following indices index: 1 Got: 17 Expected:"
        " 16 Please fix either the inputs/outputs or the model.",
    ),
}


@pytest.mark.parametrize(("text", "plain"), TEXTS.values(), ids=TEXTS)
def test_source_lines_and_signatures_are_left_out(text: str, plain: str) -> None:
    assert plain_text(RuntimeError(text)) == plain


def test_long_texts_are_cut() -> None:
    assert len(plain_text(RuntimeError("word " * 1000))) == 300


@pytest.mark.parametrize(
    ("type_text", "advice"),
    [
        ("seq(map(int64,tensor(float)))", "ZipMap off"),
        ("seq(tensor(float))", "so that it is a tensor"),
        ("optional(tensor(float))", "so that it is a tensor"),
        ("tensor(complex64)", "cast it in the model"),
    ],
)
def test_unsupported_type_says_how_to_export_again(type_text: str, advice: str) -> None:
    text = unsupported_type("output", "scores", type_text)
    assert text.startswith(f"output 'scores' is {type_text}")
    assert advice in text
