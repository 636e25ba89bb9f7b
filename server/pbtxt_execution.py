"""What config.pbtxt says about where a model runs: instances, providers and their options.

Values only, as in `pbtxt_fields`. The options of providers go to ONNX Runtime as they are, with the
exception of those that no configuration may set, and of those that only the operator may: some are
addresses, some name libraries to load or files to read and write.
"""

from collections.abc import Iterable, Mapping

from protos.inference import model_config_pb2 as pb
from server.model_config import ExecutionConfig, GraphLevel
from server.pbtxt_fields import Written

ACCELERATORS = ("tensorrt", "cuda", "openvino")

_PRECISIONS = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "INT8": {"trt_int8_enable": "1"}}
# Triton's names of TensorRT's parameters that are not ONNX Runtime's names of its options.
_TENSORRT_OPTIONS = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
# CUDA options that Triton also takes as parameters of the model, and its numbers for their values.
_CUDA_PARAMETERS: dict[str, tuple[str, ...]] = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "gpu_mem_limit": (),
    "do_copy_in_default_stream": (),
}
_GRAPH_LEVELS: dict[int, GraphLevel] = {0: "all", -1: "basic", 1: "extended", 2: "disable"}
_Accelerators = pb.ModelOptimizationPolicy.ExecutionAccelerators

_ADDRESS = "it is an address in this process"
_GRAPH = "graphs replay on the buffers they were captured with, and requests bring their own"
_REFUSED_OPTIONS = {
    "has_user_compute_stream": _ADDRESS,
    "user_compute_stream": _ADDRESS,
    "gpu_external_alloc": _ADDRESS,
    "gpu_external_free": _ADDRESS,
    "gpu_external_empty_cache": _ADDRESS,
    "trt_onnx_bytestream": _ADDRESS,
    "trt_external_data_bytestream": _ADDRESS,
    "enable_cuda_graph": _GRAPH,
    "trt_cuda_graph_enable": _GRAPH,
    "device_id": "say it as instance_group.gpus",
}
# What a client that loads a model may say of how it runs.
_OPTIONS_FOR_CLIENTS = {
    *_CUDA_PARAMETERS,
    "cudnn_conv_use_max_workspace",
    "cudnn_conv1d_pad_to_nc1d",
    "prefer_nhwc",
    "use_ep_level_unified_stream",
    "use_tf32",
    "trt_bf16_enable",
    "trt_build_heuristics_enable",
    "trt_builder_optimization_level",
    "trt_fp16_enable",
    "trt_int8_enable",
    "trt_layer_norm_fp32_fallback",
    "trt_max_partition_iterations",
    "trt_max_workspace_size",
    "trt_min_subgraph_size",
    "trt_profile_max_shapes",
    "trt_profile_min_shapes",
    "trt_profile_opt_shapes",
    "trt_sparsity_enable",
    "num_of_threads",
    "num_streams",
    "precision",
}


def execution(message: pb.ModelConfig, written: Written) -> ExecutionConfig:
    groups, optimization = message.instance_group, message.optimization
    level = optimization.graph.level
    if level not in _GRAPH_LEVELS:
        expected = f"expected one of {sorted(_GRAPH_LEVELS)}, got {level}"
        raise written.error("optimization.graph.level", expected)
    accelerators = optimization.execution_accelerators
    return ExecutionConfig(
        instances=sum(_instances(group) for group in groups) if groups else None,
        threads=_threads(message, written),
        providers=_providers(groups, accelerators),
        gpus=tuple(sorted({gpu for group in groups for gpu in group.gpus})),
        graph_level=_GRAPH_LEVELS[level],
        provider_options=_provider_options(message, written),
    )


def _instances(group: pb.ModelInstanceGroup) -> int:
    return max(1, group.count) * max(1, len(group.gpus))


def _threads(message: pb.ModelConfig, written: Written) -> int | None:
    """ONNX Runtime's parameter `intra_op_thread_count`; 0 leaves it to the server."""
    if "intra_op_thread_count" not in message.parameters:
        return None
    said = message.parameters["intra_op_thread_count"].string_value
    if not said.isascii() or not said.isdigit():
        raise written.error("intra_op_thread_count", f'expected a whole number, got "{said}"')
    return int(said) or None


def _providers(
    groups: Iterable[pb.ModelInstanceGroup], said: _Accelerators
) -> tuple[str, ...] | None:
    """Execution providers in Triton's order: GPU accelerators, CUDA, CPU accelerators, CPU.

    Those of a GPU count where an instance group asks for one, or where none speaks against it
    and an accelerator for one is named. None, where nothing is said: a GPU where there is one.
    """
    kinds = {group.kind for group in groups}
    wanted = pb.ModelInstanceGroup.KIND_GPU in kinds or any(group.gpus for group in groups)
    is_free = pb.ModelInstanceGroup.KIND_CPU not in kinds
    on_gpu = [item.name for item in said.gpu_execution_accelerator] + ["cuda"]
    on_cpu = [item.name for item in said.cpu_execution_accelerator] + ["cpu"]
    if is_free and not wanted and len(on_gpu) == len(on_cpu) == 1:
        return None
    names = on_gpu + on_cpu if wanted or (is_free and len(on_gpu) > 1) else on_cpu
    return tuple(dict.fromkeys(name for name in names if name in (*ACCELERATORS, "cpu")))


def _provider_options(message: pb.ModelConfig, written: Written) -> dict[str, dict[str, str]]:
    """What is said about the providers, by provider and ONNX Runtime's names of its options.

    Source: README.md of triton-inference-server/onnxruntime_backend.
    """
    said = message.optimization.execution_accelerators
    options = {"cuda": _cuda_parameters(message, written)}
    for item in (*said.gpu_execution_accelerator, *said.cpu_execution_accelerator):
        if item.name == "tensorrt":
            options[item.name] = _tensorrt_options(item.parameters, written)
        elif item.name in ACCELERATORS:
            options[item.name] = {**options.get(item.name, {}), **item.parameters}
    for values in options.values():
        for name in values:
            _check_option(name, written)
    return {name: values for name, values in options.items() if values}


def _check_option(name: str, written: Written) -> None:
    reason = _REFUSED_OPTIONS.get(name)
    if reason is not None:
        raise written.error(name, f"cannot be set: {reason}")
    if written.is_from_client and name not in _OPTIONS_FOR_CLIENTS:
        known = ", ".join(sorted(_OPTIONS_FOR_CLIENTS))
        raise written.error(name, f"only a config.pbtxt may set it; a load call may set {known}")


def _cuda_parameters(message: pb.ModelConfig, written: Written) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, values in _CUDA_PARAMETERS.items():
        if name in message.parameters:
            said = message.parameters[name].string_value
            if values and said not in map(str, range(len(values))):
                expected = f'expected a number from 0 to {len(values) - 1}, got "{said}"'
                raise written.error(name, expected)
            options[name] = values[int(said)] if values else said
    return options


def _tensorrt_options(parameters: Mapping[str, str], written: Written) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parameters.items():
        if name != "precision_mode":
            options[_TENSORRT_OPTIONS.get(name, name)] = value
        elif value in _PRECISIONS:
            options |= _PRECISIONS[value]
        else:
            expected = f'expected one of {", ".join(_PRECISIONS)}, got "{value}"'
            raise written.error("precision_mode", expected)
    return options
