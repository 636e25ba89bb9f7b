"""`ModelConfig` of the Open Inference service: a served version in Triton's terms. Pure.

Clients (perf_analyzer above all) read it together with the metadata: `max_batch_size` above 0
means that the metadata's shapes begin with a batch dimension and the `dims` here do not.
"""

from collections.abc import Iterable

from protos.inference import model_config_pb2 as pb
from protos.signature import Signature
from server.batch_policy import BatchSettings, QueuePolicy, TimeoutAction
from server.model_config import ModelConfig, TensorConfig, VersionPolicy, WarmUpInput, WarmUpSample
from server.probe import Profile
from server.served import ServedVersion

_BACKENDS = {"onnxruntime_onnx": "onnxruntime"}  # platform -> Triton's name of the backend


def model_config(served: ServedVersion) -> pb.ModelConfig:
    """The configuration in force: what was declared, and what was inferred."""
    config, settings = served.config, served.batcher.settings
    max_batch_size = max_batch_size_of(config, served.profile, settings)
    message = pb.ModelConfig(
        name=served.model,
        platform=config.platform or served.platform,
        backend=config.backend or _BACKENDS.get(served.platform, served.platform),
        version_policy=_version_policy(config.version_policy),
        max_batch_size=max_batch_size,
        instance_group=[_instance_group(served)],
        default_model_filename=config.default_model_filename,
        metric_tags=config.metric_tags,
        parameters={
            key: pb.ModelParameter(string_value=value) for key, value in config.parameters.items()
        },
        model_warmup=[_warm_up(sample) for sample in config.warm_up_samples],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    _fill_tensors(message, served.signature, config, has_batch=max_batch_size > 0)
    if served.profile.batchable:
        message.dynamic_batching.CopyFrom(
            _dynamic_batching(settings, config.batching.preferred_batch_sizes)
        )
    return message


def max_batch_size_of(config: ModelConfig, profile: Profile, settings: BatchSettings) -> int:
    """The rows a request may bring, in Triton's sense; 0: there is no batch dimension.

    A declared number is kept even where smaller batches run faster: larger requests are split.
    """
    if profile.batchable:
        return max(config.max_batch_size or 0, settings.max_batch)
    return profile.request_rows or 0


def _fill_tensors(
    message: pb.ModelConfig, signature: Signature, config: ModelConfig, *, has_batch: bool
) -> None:
    declared_inputs = {tensor.name: tensor for tensor in config.inputs}
    declared_outputs = {tensor.name: tensor for tensor in config.outputs}
    for spec in signature.inputs:
        declared = declared_inputs.get(spec.name)
        message.input.add(
            name=spec.name,
            data_type=_data_type(spec.datatype),
            dims=spec.wire_shape[1:] if has_batch else spec.wire_shape,
            reshape=_reshape(declared),
            optional=spec.optional,
            allow_ragged_batch=declared is not None and declared.allow_ragged_batch,
        )
    for spec in signature.outputs:
        declared = declared_outputs.get(spec.name)
        message.output.add(
            name=spec.name,
            data_type=_data_type(spec.datatype),
            dims=spec.wire_shape[1:] if has_batch else spec.wire_shape,
            reshape=_reshape(declared),
            label_filename="" if declared is None else declared.label_filename,
        )


def _data_type(datatype: str) -> str:
    """The name of Triton's enum value."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _reshape(declared: TensorConfig | None) -> pb.ModelTensorReshape | None:
    if declared is None or declared.reshape is None:
        return None
    return pb.ModelTensorReshape(shape=declared.reshape)


def _version_policy(policy: VersionPolicy) -> pb.ModelVersionPolicy:
    if policy.specific:
        return pb.ModelVersionPolicy(
            specific=pb.ModelVersionPolicy.Specific(versions=policy.specific)
        )
    if policy.latest is None:
        return pb.ModelVersionPolicy(all=pb.ModelVersionPolicy.All())
    return pb.ModelVersionPolicy(latest=pb.ModelVersionPolicy.Latest(num_versions=policy.latest))


def _instance_group(served: ServedVersion) -> pb.ModelInstanceGroup:
    gpus = [
        int(device.partition(":")[2] or 0)
        for device in served.loaded.narrow.devices
        if device.startswith("cuda")
    ]
    return pb.ModelInstanceGroup(
        name=served.model,
        kind=pb.ModelInstanceGroup.KIND_GPU if gpus else pb.ModelInstanceGroup.KIND_CPU,
        count=served.loaded.instances,
        gpus=gpus,
    )


def _dynamic_batching(settings: BatchSettings, preferred: Iterable[int]) -> pb.ModelDynamicBatching:
    return pb.ModelDynamicBatching(
        preferred_batch_size=preferred,
        max_queue_delay_microseconds=_microseconds(settings.window_s),
        preserve_ordering=settings.preserve_ordering,
        priority_levels=settings.priority_levels,
        default_priority_level=settings.default_priority,
        default_queue_policy=_queue_policy(settings.queue),
        priority_queue_policy={
            level: _queue_policy(policy) for level, policy in settings.priority_queues
        },
    )


def _queue_policy(policy: QueuePolicy) -> pb.ModelQueuePolicy:
    delays = policy.timeout_action is TimeoutAction.DELAY
    return pb.ModelQueuePolicy(
        timeout_action=pb.ModelQueuePolicy.DELAY if delays else pb.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=_microseconds(policy.timeout_s or 0.0),
        allow_timeout_override=policy.allow_timeout_override,
        max_queue_size=policy.queue_limit,
    )


def _warm_up(sample: WarmUpSample) -> pb.ModelWarmup:
    return pb.ModelWarmup(
        name=sample.name,
        batch_size=sample.batch_size,
        inputs={name: _warm_up_input(tensor) for name, tensor in sample.inputs.items()},
        count=sample.count,
    )


def _warm_up_input(tensor: WarmUpInput) -> pb.ModelWarmup.Input:
    message = pb.ModelWarmup.Input(data_type=_data_type(tensor.datatype), dims=tensor.dims)
    if tensor.source == "zero":
        message.zero_data = True
    elif tensor.source == "random":
        message.random_data = True
    elif tensor.file is not None:
        message.input_data_file = tensor.file.name
    return message


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
