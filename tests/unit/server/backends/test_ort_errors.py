"""Texts of ONNX Runtime, as people get to see them."""

import pytest

from server.backends.ort_errors import plain_text, start_reason, unsupported_type

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
    "out of memory on a GPU": (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node."
        " Name:'MatMul_3' Status Message: /onnxruntime_src/onnxruntime/core/providers/cuda/"
        "cuda_call.cc:129 bool onnxruntime::CudaCall(cudaError, const char*, const char*, int)"
        " CUDA failure 2: out of memory ; GPU=0 ; hostname=db7.internal ; file=/onnxruntime_src/"
        "onnxruntime/core/providers/cuda/cuda_allocator.cc ; line=48 ; expr=cudaMalloc(&p, size); ",
        "operator MatMul: CUDA failure 2: out of memory",
    ),
}


@pytest.mark.parametrize(("text", "plain"), TEXTS.values(), ids=TEXTS)
def test_source_lines_and_signatures_are_left_out(text: str, plain: str) -> None:
    assert plain_text(RuntimeError(text)) == plain


NOT_STARTED = {
    "option": (
        "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static"
        " onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::"
        "FromProviderOptions(const onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL :"
        ' provider_options_utils.h:182 Parse Unknown provider option: "no_such".\n',
        'Unknown provider option: "no_such".',
    ),
    "device": (
        "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static"
        " onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::"
        "FromProviderOptions(const onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL :"
        ' provider_options_utils.h:187 Parse Failed to parse provider option "device_id": CUDA'
        " failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=vm ; file=/onnx.cc ;"
        " line=70 ; expr=cudaGetDeviceCount(&num_devices);",
        "CUDA failure 100: no CUDA-capable device is detected",
    ),
    "driver": (
        "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1",
        "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version (CUDA 13"
        " needs NVIDIA's driver 580 or later)",
    ),
    "anything else": ("Please install TensorRT libraries", "Please install TensorRT libraries"),
}


@pytest.mark.parametrize(("text", "reason"), NOT_STARTED.values(), ids=NOT_STARTED)
def test_why_a_provider_does_not_start(text: str, reason: str) -> None:
    assert start_reason(RuntimeError(text)) == reason


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
