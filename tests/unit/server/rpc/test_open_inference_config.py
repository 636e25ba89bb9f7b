"""A served version in Triton's terms."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from protos.inference import model_config_pb2 as pb
from protos.signature import Signature, TensorSpec
from server.batch_policy import BatchSettings, QueuePolicy, TimeoutAction
from server.loader import LoadedModel
from server.model_config import (
    BatchingConfig,
    ModelConfig,
    TensorConfig,
    VersionPolicy,
    VersionSource,
    WarmUpInput,
    WarmUpSample,
)
from server.probe import Profile
from server.rpc.open_inference_config import max_batch_size_of, model_config
from server.served import ServedVersion
from server.slots import ComputeSlots
from tests.fakes import FakeBackend

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", ("n", 3, "w")), TensorSpec("t", "BYTES", ("n", 1), optional=True)),
    (TensorSpec("y", "INT64", ("n",)),),
)


async def config_of(
    config: ModelConfig, profile: Profile, settings: BatchSettings, backend: FakeBackend
) -> pb.ModelConfig:
    loaded = LoadedModel(backend, None, 2, backend.signature, profile, settings, {})
    source = VersionSource("m", 1, Path("model.onnx"), config)
    served = ServedVersion(source, loaded, ComputeSlots(2))
    message = model_config(served)
    served.retire()
    await served.closed()
    return message


async def test_a_batching_model_has_its_batch_dimension_taken_off() -> None:
    message = await config_of(
        ModelConfig("m"),
        Profile(batchable=True, max_batch=16),
        BatchSettings(max_batch=16, window_s=0.002),
        FakeBackend(signature=SIGNATURE),
    )
    expected = pb.ModelConfig()
    text_format.Parse(
        """
        name: "m" platform: "fake" backend: "fake" max_batch_size: 16
        version_policy { latest { num_versions: 1 } }
        input { name: "x" data_type: TYPE_FP32 dims: 3 dims: -1 }
        input { name: "t" data_type: TYPE_STRING dims: 1 optional: true }
        output { name: "y" data_type: TYPE_INT64 }
        instance_group { name: "m" kind: KIND_CPU count: 2 }
        dynamic_batching {
          max_queue_delay_microseconds: 2000 priority_levels: 1 default_priority_level: 1
          default_queue_policy { allow_timeout_override: true max_queue_size: 1024 }
        }
        model_transaction_policy {}
        """,
        expected,
    )
    assert message == expected


async def test_a_model_that_does_not_batch_keeps_whole_shapes() -> None:
    message = await config_of(
        ModelConfig("m"),
        Profile(batchable=False, reason="rows influence each other"),
        BatchSettings(),
        FakeBackend(signature=SIGNATURE),
    )
    assert message.max_batch_size == 0
    assert list(message.input[0].dims) == [-1, 3, -1]
    assert message.WhichOneof("scheduling_choice") is None


@pytest.mark.parametrize(
    ("declared", "profile", "in_force", "expected"),
    [
        (None, Profile(batchable=True, max_batch=4), 4, 4),
        (32, Profile(batchable=True, max_batch=4), 4, 32),
        (2, Profile(batchable=True, max_batch=2), 8, 8),
        (8, Profile(batchable=False, request_rows=8), 1, 8),
        (None, Profile(batchable=False), 1, 0),
        (0, Profile(batchable=False), 1, 0),
    ],
    ids=[
        "inferred",
        "declared, though smaller batches are faster",
        "raised at run time",
        "declared, but run one by one",
        "no batch dimension",
        "declared to have none",
    ],
)
def test_max_batch_size(
    declared: int | None, profile: Profile, in_force: int, expected: int
) -> None:
    config = ModelConfig("m", max_batch_size=declared)
    assert max_batch_size_of(config, profile, BatchSettings(max_batch=in_force)) == expected


async def test_what_was_declared_is_shown() -> None:
    config = ModelConfig(
        "m",
        batching=BatchingConfig(preferred_batch_sizes=(4, 8)),
        version_policy=VersionPolicy(specific=(1, 3)),
        max_batch_size=8,
        inputs=(TensorConfig("x", "FP32", (9,), reshape=(3, 3), allow_ragged_batch=True),),
        outputs=(TensorConfig("y", "INT64", (), label_filename="labels.txt"),),
        platform="onnxruntime_onnx",
        default_model_filename="net.onnx",
        parameters={"a": "b"},
        metric_tags={"team": "x"},
        warm_up_samples=(
            WarmUpSample(
                "sample",
                2,
                {
                    "x": WarmUpInput("FP32", (9,), "random"),
                    "t": WarmUpInput("BYTES", (1,), "zero"),
                    "f": WarmUpInput("FP32", (1,), "file", Path("warmup/f.bin")),
                },
            ),
        ),
    )
    settings = BatchSettings(
        max_batch=8,
        priority_levels=2,
        default_priority=2,
        queue=QueuePolicy(queue_limit=7, timeout_s=0.5, timeout_action=TimeoutAction.DELAY),
        priority_queues=((1, QueuePolicy(allow_timeout_override=False)),),
        preserve_ordering=True,
    )
    message = await config_of(
        config,
        Profile(batchable=True, max_batch=8),
        settings,
        FakeBackend(signature=SIGNATURE),
    )
    assert list(message.version_policy.specific.versions) == [1, 3]
    assert list(message.input[0].reshape.shape) == [3, 3]
    assert message.input[0].allow_ragged_batch
    assert not message.input[1].HasField("reshape")
    assert message.output[0].label_filename == "labels.txt"
    assert (message.platform, message.default_model_filename) == ("onnxruntime_onnx", "net.onnx")
    assert message.parameters["a"].string_value == "b"
    assert dict(message.metric_tags) == {"team": "x"}
    batching = message.dynamic_batching
    assert list(batching.preferred_batch_size) == [4, 8]
    assert (batching.priority_levels, batching.default_priority_level) == (2, 2)
    assert batching.preserve_ordering
    queue = batching.default_queue_policy
    assert (queue.timeout_action, queue.max_queue_size) == (pb.ModelQueuePolicy.DELAY, 7)
    assert queue.default_timeout_microseconds == 500_000
    assert not batching.priority_queue_policy[1].allow_timeout_override
    warm_up = message.model_warmup[0]
    assert (warm_up.name, warm_up.batch_size, warm_up.count) == ("sample", 2, 1)
    assert warm_up.inputs["x"].random_data
    assert warm_up.inputs["t"].data_type == pb.TYPE_STRING
    assert warm_up.inputs["f"].input_data_file == "f.bin"


async def test_all_versions_and_devices() -> None:
    backend = FakeBackend(signature=SIGNATURE)
    backend.devices = ("cuda:1",)
    message = await config_of(
        ModelConfig("m", version_policy=VersionPolicy(latest=None)),
        Profile(batchable=False),
        BatchSettings(),
        backend,
    )
    assert message.version_policy.HasField("all")
    assert message.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert list(message.instance_group[0].gpus) == [1]
