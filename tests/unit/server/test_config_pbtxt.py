import json
import re
from pathlib import Path

import pytest

from server.batch_policy import QueuePolicy, TimeoutAction
from server.config_pbtxt import read_json, read_pbtxt
from server.model_config import (
    BatchingConfig,
    ConfigError,
    ExecutionConfig,
    ModelConfig,
    TensorConfig,
    VersionPolicy,
    WarmUpInput,
    WarmUpSample,
)

FULL = """
name: "digits"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: 8
default_model_filename: "net.onnx"
input [
  { name: "x" data_type: TYPE_FP32 dims: [ 1, -1 ] reshape { shape: [ -1 ] } optional: true },
  { name: "text" data_type: TYPE_STRING dims: [ 1 ] allow_ragged_batch: true }
]
output { name: "y" data_type: TYPE_INT64 dims: 10 label_filename: "labels.txt" }
version_policy: { specific { versions: [1, 3] } }
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 2500
  preserve_ordering: true
  priority_levels: 3
  default_priority_level: 3
  default_queue_policy { max_queue_size: 10 }
  priority_queue_policy {
    key: 1
    value {
      timeout_action: DELAY
      default_timeout_microseconds: 100000
      allow_timeout_override: true
    }
  }
}
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] }, { kind: KIND_CPU } ]
optimization {
  graph { level: 1 }
  execution_accelerators {
    gpu_execution_accelerator : [ {
      name : "tensorrt"
      parameters { key: "precision_mode" value: "FP16" }
    } ]
  }
}
model_warmup {
  name: "sample" batch_size: 2
  inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 1, 4 ] random_data: true } }
  inputs { key: "text" value { data_type: TYPE_STRING dims: 1 input_data_file: "text.bin" } }
}
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
metric_tags { key: "team" value: "vision" }
response_cache { enable: true }
model_transaction_policy { decoupled: false }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "digits"
    (folder / "warmup").mkdir(parents=True)
    (folder / "warmup" / "text.bin").write_bytes(b"\x01\0\0\0a")
    (folder / "labels.txt").write_text("zero\none\n")
    return folder


def read(folder: Path, text: str) -> ModelConfig:
    path = folder / "config.pbtxt"
    path.write_text(text)
    return read_pbtxt(path, "digits")


def test_every_field_is_read(folder: Path) -> None:
    config = read(folder, FULL)
    assert config == ModelConfig(
        name="digits",
        batching=BatchingConfig(
            enabled=True,
            window_s=0.0025,
            priority_levels=3,
            default_priority=3,
            queue=QueuePolicy(10, None, TimeoutAction.REJECT, allow_timeout_override=False),
            priority_queues=((1, QueuePolicy(0, 0.1, TimeoutAction.DELAY)),),
            preserve_ordering=True,
            preferred_batch_sizes=(4, 8),
        ),
        execution=ExecutionConfig(
            instances=5,
            threads=2,
            providers=("tensorrt", "cuda", "cpu"),
            gpus=(0, 1),
            graph_level="extended",
            provider_options={"tensorrt": {"trt_fp16_enable": "1"}},
        ),
        version_policy=VersionPolicy(specific=(1, 3)),
        max_batch_size=8,
        inputs=(
            TensorConfig("x", "FP32", (1, -1), reshape=(-1,), optional=True),
            TensorConfig("text", "BYTES", (1,), allow_ragged_batch=True),
        ),
        outputs=(
            TensorConfig("y", "INT64", (10,), labels=("zero", "one"), label_filename="labels.txt"),
        ),
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        default_model_filename="net.onnx",
        parameters={"intra_op_thread_count": "2"},
        metric_tags={"team": "vision"},
        warm_up_samples=(
            WarmUpSample(
                "sample",
                2,
                {
                    "x": WarmUpInput("FP32", (1, 4), "random"),
                    "text": WarmUpInput("BYTES", (1,), "file", folder / "warmup" / "text.bin"),
                },
            ),
        ),
        response_cache=True,
        origin=str(folder / "config.pbtxt"),
        warnings=(
            "dynamic_batching.preferred_batch_size has no effect: an idle instance takes the"
            " requests that are there",
            "response_cache.enable has no effect: there is no response cache",
            "input.allow_ragged_batch has no effect: requests of one shape are batched together",
            "instance_group.gpus [0, 1]: all instances run on GPU 0",
        ),
    )


def test_shapes_have_the_batch_dimension_when_there_is_one(folder: Path) -> None:
    config = read(folder, FULL)
    assert config.model_shape(config.inputs[0]) == (-1, -1)
    plain = read(folder, 'input { name: "x" data_type: TYPE_FP32 dims: [ 3, 4 ] }')
    assert plain.model_shape(plain.inputs[0]) == (3, 4)


TENSOR = 'input { name: "x" data_type: TYPE_FP32 dims: 4 }'


@pytest.mark.parametrize(
    ("text", "limit", "enabled"),
    [
        pytest.param("", None, None, id="nothing said"),
        pytest.param("# max_batch_size: 4", None, None, id="said in a comment only"),
        pytest.param("max_batch_size: 0", 0, False, id="said to be 0"),
        pytest.param(TENSOR, 0, False, id="tensors without it: as Triton, 0"),
        pytest.param("max_batch_size: 4", 4, None, id="no word on batching: inferred"),
        pytest.param("max_batch_size: 4 dynamic_batching {}", 4, True, id="asked for"),
        pytest.param("dynamic_batching {}", None, True, id="asked for, limit inferred"),
    ],
)
def test_max_batch_size(folder: Path, text: str, limit: int | None, enabled: bool | None) -> None:
    config = read(folder, text)
    assert (config.max_batch_size, config.batching.enabled) == (limit, enabled)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", VersionPolicy(latest=1)),
        ("version_policy { latest {} }", VersionPolicy(latest=1)),
        ("version_policy { latest { num_versions: 2 } }", VersionPolicy(latest=2)),
        ("version_policy { all {} }", VersionPolicy(latest=None)),
    ],
)
def test_version_policy(folder: Path, text: str, policy: VersionPolicy) -> None:
    assert read(folder, text).version_policy == policy


TENSORRT = 'gpu_execution_accelerator { name: "tensorrt" }'
OPENVINO = 'cpu_execution_accelerator { name: "openvino" }'


@pytest.mark.parametrize(
    ("groups", "accelerators", "providers"),
    [
        pytest.param("", "", None, id="nothing said"),
        pytest.param("kind: KIND_AUTO", "", None, id="auto"),
        pytest.param("count: 2", "", None, id="only their number"),
        pytest.param("", OPENVINO, ("openvino", "cpu"), id="cpu accelerator, auto"),
        pytest.param("kind: KIND_CPU", "", ("cpu",), id="cpu"),
        pytest.param("kind: KIND_GPU", "", ("cuda", "cpu"), id="gpu"),
        pytest.param("gpus: 1", "", ("cuda", "cpu"), id="a gpu by number"),
        pytest.param("count: 1", TENSORRT, ("tensorrt", "cuda", "cpu"), id="accelerator, auto"),
        pytest.param("kind: KIND_CPU", TENSORRT, ("cpu",), id="gpu accelerator on a cpu"),
        pytest.param("kind: KIND_CPU", OPENVINO, ("openvino", "cpu"), id="cpu accelerator"),
    ],
)
def test_providers(
    folder: Path, groups: str, accelerators: str, providers: tuple[str, ...] | None
) -> None:
    text = f"instance_group {{ {groups} }}" if groups else ""
    text += f"optimization {{ execution_accelerators {{ {accelerators} }} }}"
    assert read(folder, text).execution.providers == providers


def accelerated(name: str, **parameters: str) -> str:
    """A configuration with an accelerator and its parameters."""
    said = " ".join(f'parameters {{ key: "{k}" value: "{v}" }}' for k, v in parameters.items())
    accelerator = f'gpu_execution_accelerator {{ name: "{name}" {said} }}'
    return f"optimization {{ execution_accelerators {{ {accelerator} }} }}"


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}'


@pytest.mark.parametrize(
    ("text", "options"),
    [
        pytest.param(accelerated("tensorrt"), {}, id="none"),
        pytest.param(accelerated("tensorrt", precision_mode="FP32"), {}, id="precision, default"),
        pytest.param(
            accelerated("tensorrt", precision_mode="INT8", max_workspace_size_bytes="99"),
            {"tensorrt": {"trt_int8_enable": "1", "trt_max_workspace_size": "99"}},
            id="Triton's names for TensorRT",
        ),
        pytest.param(
            accelerated("tensorrt", trt_engine_cache_enable="1"),
            {"tensorrt": {"trt_engine_cache_enable": "1"}},
            id="ONNX Runtime's names for TensorRT",
        ),
        pytest.param(
            parameter("cudnn_conv_algo_search", "2") + parameter("gpu_mem_limit", "1000"),
            {"cuda": {"cudnn_conv_algo_search": "DEFAULT", "gpu_mem_limit": "1000"}},
            id="CUDA by parameters of the model",
        ),
        pytest.param(
            parameter("arena_extend_strategy", "0")
            + accelerated("cuda", arena_extend_strategy="kSameAsRequested", use_tf32="0"),
            {"cuda": {"arena_extend_strategy": "kSameAsRequested", "use_tf32": "0"}},
            id="CUDA, the accelerator wins",
        ),
    ],
)
def test_provider_options(folder: Path, text: str, options: dict[str, dict[str, str]]) -> None:
    assert read(folder, text).execution.provider_options == options


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            accelerated("tensorrt", precision_mode="FP8"),
            'precision_mode: expected one of FP32, FP16, INT8, got "FP8"',
        ),
        (
            parameter("arena_extend_strategy", "2"),
            'arena_extend_strategy: expected a number from 0 to 1, got "2"',
        ),
        (
            accelerated("cuda", gpu_external_alloc="140737488355328"),
            "gpu_external_alloc: cannot be set: it is an address in this process",
        ),
        (
            accelerated("cuda", enable_cuda_graph="1"),
            "enable_cuda_graph: cannot be set: graphs replay on the buffers they were captured",
        ),
        (accelerated("tensorrt", device_id="1"), "device_id: cannot be set: say it as instance_"),
    ],
)
def test_wrong_provider_options_are_named(folder: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        read(folder, text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            'name: "digits"\nmax_batchsize: 3',
            ", line 2, column 1: Message type",
            id="unknown field has its place",
        ),
        pytest.param("max_batchsize: 3", 'Did you mean "max_batch_size"?', id="nearest field"),
        pytest.param(
            "dynamic_batching { preferred_batchsize: 3 }",
            'Did you mean "preferred_batch_size"?',
            id="nearest field of an inner message",
        ),
        pytest.param("zzz: 3", "Valid fields: name, platform, backend", id="no field is near"),
        pytest.param("max_batch_size: eight", "max_batch_size: eight", id="type"),
        pytest.param("input { data_type: TYPE_FP31 }", "no value named TYPE_FP31", id="enum"),
        pytest.param("input {", ", line 1, column", id="syntax"),
        pytest.param(
            '\nname: "other"',
            ', line 2: name: expected the name of the model\'s folder, "digits", got "other"',
            id="name",
        ),
        pytest.param(
            'platform: "tensorflow_savedmodel"',
            'line 1: platform: expected "onnxruntime_onnx", got "tensorflow_savedmodel"',
            id="platform",
        ),
        pytest.param('backend: "python"', 'expected "onnxruntime", got "python"', id="backend"),
        pytest.param("max_batch_size: -1", "expected a whole number >= 0, got -1", id="negative"),
        pytest.param(
            "max_batch_size: 0 dynamic_batching {}",
            "expected at least 1 with dynamic_batching, got 0",
            id="batching without a batch",
        ),
        pytest.param(
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }",
            "preferred_batch_size: expected 1 to max_batch_size (4), got 8",
            id="preferred size beyond the limit",
        ),
        pytest.param(
            "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
            "default_priority_level: expected 1 to 2, got 3",
            id="default priority",
        ),
        pytest.param(
            "dynamic_batching { priority_levels: 2 priority_queue_policy { key: 3 value {} } }",
            "priority_queue_policy: expected levels 1 to 2 (priority_levels), got 3",
            id="policy of a level that is not there",
        ),
        pytest.param(
            "version_policy { specific {} }", "expected positive version numbers", id="versions"
        ),
        pytest.param("optimization { graph { level: 7 } }", "expected one of", id="level"),
        pytest.param(
            'parameters { key: "intra_op_thread_count" value { string_value: "two" } }',
            'intra_op_thread_count: expected a whole number, got "two"',
            id="threads",
        ),
        pytest.param("input { dims: 1 }", "input.name: expected a name", id="no name"),
        pytest.param(
            'input { name: "x" dims: 0 }',
            'input.dims: "x": expected sizes >= 1 or -1 (variable), got 0',
            id="dims",
        ),
        pytest.param(
            'output { name: "y" dims: 1 label_filename: "no.txt" }',
            "label_filename: no such file",
            id="labels missing",
        ),
        pytest.param(
            'output { name: "y" dims: 1 label_filename: "../secret" }',
            "label_filename: expected a file in",
            id="labels outside the model's folder",
        ),
        pytest.param(
            'model_warmup { inputs { key: "x" value { input_data_file: "/etc/passwd" } } }',
            "input_data_file: expected a file in",
            id="warm-up data outside the model's folder",
        ),
        pytest.param(
            "\n\nsequence_batching {}",
            ", line 3: sequence_batching: cannot be honoured: sequences keep state",
            id="sequences",
        ),
        pytest.param("ensemble_scheduling {}", "ensembles are not served", id="ensembles"),
        pytest.param("batch_input {}", "inputs that the server would have to make", id="ragged"),
        pytest.param(
            "model_transaction_policy { decoupled: true }",
            "model_transaction_policy.decoupled: cannot be honoured",
            id="decoupled",
        ),
        pytest.param(
            'model_operations { op_library_filename: "x.so" }',
            "libraries of custom operators are not loaded",
            id="custom operators",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(folder: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(folder, text)
    assert str(error.value).startswith(str(folder / "config.pbtxt"))
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("instance_group { rate_limiter { priority: 2 } }", "instance_group.rate_limiter"),
        ("instance_group [ { count: 1 }, { host_policy: 'a' } ]", "instance_group.host_policy"),
        ("optimization { cuda { graphs: true } }", "optimization.cuda"),
        ("model_metrics {}", "model_metrics"),
        ("parameters { key: 'execution_mode' value {} }", 'parameter "execution_mode"'),
        (
            "optimization { execution_accelerators {"
            " gpu_execution_accelerator { name: 'gpu_io' } } }",
            'accelerator "gpu_io"',
        ),
    ],
)
def test_what_is_merely_tuning_is_a_warning(folder: Path, text: str, warning: str) -> None:
    warnings = read(folder, text).warnings
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{warning} has no effect: ")


def test_fields_at_their_defaults_do_not_warn(folder: Path) -> None:
    assert read(folder, "response_cache { enable: false } input { name: 'x' }").warnings == ()


def test_a_client_may_tune_but_name_no_files(folder: Path) -> None:
    def read_options(name: str, **parameters: str) -> ModelConfig:
        accelerator = {"name": name, "parameters": parameters}
        said = {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}
        return read_json(json.dumps({"optimization": said}), "digits", folder)

    tuned = read_options("tensorrt", precision_mode="FP16", max_workspace_size_bytes="9")
    expected = {"tensorrt": {"trt_fp16_enable": "1", "trt_max_workspace_size": "9"}}
    assert tuned.execution.provider_options == expected
    for name in ("trt_extra_plugin_lib_paths", "trt_engine_cache_path", "what_comes_next"):
        assert read(folder, accelerated("tensorrt", **{name: "/tmp/x"})).execution.provider_options
        with pytest.raises(ConfigError, match=f"{name}: only a config.pbtxt may set it; a load"):
            read_options("tensorrt", **{name: "/tmp/x"})


def test_json_says_the_same(folder: Path) -> None:
    config = read_json(
        json.dumps(
            {
                "name": "digits",
                "max_batch_size": 8,
                "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
                "version_policy": {"specific": {"versions": ["2"]}},
                "dynamic_batching": {"max_queue_delay_microseconds": 1000},
            }
        ),
        "digits",
        folder,
    )
    assert config == ModelConfig(
        name="digits",
        max_batch_size=8,
        inputs=(TensorConfig("x", "FP32", (4,)),),
        version_policy=VersionPolicy(specific=(2,)),
        batching=BatchingConfig(enabled=True, window_s=0.001),
        origin="config of the load request",
    )


def test_json_may_use_camel_case(folder: Path) -> None:
    assert read_json('{"maxBatchSize": 0}', "digits", folder).max_batch_size == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"max_batchsize": 3}', 'Did you mean "max_batch_size"?'),
        ("{", "Expecting property name"),
        ("[]", "expected a JSON object, got []"),
        ('{"name": "other"}', "line 1: name: expected"),
        ('{"output": [{"name": "y", "label_filename": "../x"}]}', "expected a file in"),
    ],
)
def test_a_mistake_in_json_is_named(folder: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_json(text, "digits", folder)
    assert str(error.value).startswith("config of the load request")
    assert problem in str(error.value)
