"""The probes in their order, on real sessions."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from protos.tensors import Array
from server import profiling
from server.backends import format_of
from server.backends.base import Backend
from server.backends.by_batch import ByBatchBackend, Regime
from server.backends.model_file import ModelFile
from server.backends.reshaped import reshaped
from server.errors import LoadFailed
from server.model_config import (
    BatchingConfig,
    ExecutionConfig,
    ModelConfig,
    TensorConfig,
    WarmUpInput,
    WarmUpSample,
)
from server.profiling import Probed
from tests import models
from tests.fakes import FakeBackend

PAD = BatchingConfig(pad="right")


def probed(folder: Path, content: bytes, config: ModelConfig | None = None) -> Probed:
    backend, result = opened_and_probed(folder, content, config)
    backend.close()
    return result


def opened_and_probed(
    folder: Path, content: bytes, config: ModelConfig | None = None
) -> tuple[Backend, Probed]:
    path = folder / "model.onnx"
    path.write_bytes(content)
    form = format_of(path)
    artifact = form.inspect(path)
    backend = form.open(artifact, ExecutionConfig(), 1)
    return backend, profiling.probe(backend, config or ModelConfig("m"), artifact, 0.05)


def test_safe_model_is_batched_and_measured(tmp_path: Path) -> None:
    found = probed(tmp_path, models.mlp())
    profile = found.profile
    assert profile.batchable
    assert not profile.reason
    assert [point.batch for point in profile.curve][:3] == [1, 2, 4]
    assert 1 <= profile.max_batch <= 64
    assert profile.max_batch_reason
    assert [len(inputs["x"]) for inputs in found.batches][-1] == profile.max_batch
    assert found.example["x"].shape == (1, 16)


def forms(*factors: float, largest: int = 1) -> ByBatchBackend:
    """One factor for batches of up to so many rows, another for larger ones."""

    def times(factor: float) -> FakeBackend:
        return FakeBackend(lambda inputs: {"y": inputs["x"] * factor})

    small, large = map(times, factors)
    return ByBatchBackend([Regime(largest, small), Regime(None, large)], "both-1")


RESHAPED = ModelConfig(
    "m",
    max_batch_size=8,
    inputs=(TensorConfig("x", "FP32", (2, 1), reshape=(2,)),),
    outputs=(TensorConfig("y", "FP32", (2,)),),
)


@pytest.mark.parametrize("config", [ModelConfig("m"), RESHAPED], ids=["plain", "reshaped"])
def test_forms_may_differ_and_rows_of_one_may_not(config: ModelConfig) -> None:
    file = ModelFile(Path("x"), "both-1", 1)
    found = profiling.probe(reshaped(forms(1, 1.05), config), config, file, 0.01)
    assert found.profile.batchable, found.profile.reason
    mixing = FakeBackend(lambda inputs: {"y": inputs["x"] + inputs["x"].mean()})
    both = ByBatchBackend([Regime(4, FakeBackend()), Regime(None, mixing)], "both-1")
    found = profiling.probe(reshaped(both, config), config, file, 0.01)
    assert "rows of a batch influence each other" in found.profile.reason


@pytest.mark.parametrize("is_low_precision", [False, True])
def test_low_precision_makes_larger_differences(is_low_precision: bool) -> None:
    def steps(inputs: Mapping[str, Array]) -> dict[str, Array]:
        x = inputs["x"]
        return {"y": x * (1.02 if len(x) > 1 else 1)}

    file = ModelFile(Path("x"), "int8-1", 1, is_low_precision=is_low_precision)
    found = profiling.probe(FakeBackend(steps), ModelConfig("m"), file, 0.01)
    assert found.profile.batchable is is_low_precision


ONE_BY_ONE = {
    "softmax over the batch": (models.softmax_over_batch(), "rows of a batch influence each other"),
    "noise": (models.random_noise(), "two runs of the same input give different answers"),
    "fixed batch": (models.mlp(batch=1), "input 'x' FP32[1, 16] has no variable dimension 0"),
    "optional weights": (
        models.optional_bias(),
        "input 'bias' FP32[4] has no variable dimension 0",
    ),
    "lost rows": (models.rows_lost(), "output 'y' has shape [1, 4] for 2 rows"),
}


@pytest.mark.parametrize(("content", "reason"), ONE_BY_ONE.values(), ids=ONE_BY_ONE)
def test_unsafe_model_runs_one_by_one(tmp_path: Path, content: bytes, reason: str) -> None:
    found = probed(tmp_path, content)
    assert not found.profile.batchable
    assert found.profile.reason.startswith(reason)
    assert found.profile.max_batch == 1
    assert found.profile.request_rows is None
    assert [point.batch for point in found.profile.curve] == [1]
    assert found.example


def test_declared_batches_of_an_unsafe_model_run_as_sent(tmp_path: Path) -> None:
    config = ModelConfig("m", max_batch_size=8, origin="config.pbtxt")
    profile = probed(tmp_path, models.softmax_over_batch(), config).profile
    assert (profile.batchable, profile.request_rows) == (False, 8)
    assert probed(tmp_path, models.rows_lost(), config).profile.request_rows is None


DISABLED = {
    "by the switch": (
        ModelConfig("m", BatchingConfig(enabled=False)),
        "switched off by [batching]",
    ),
    "by max_batch_size": (
        ModelConfig(
            "m", BatchingConfig(enabled=False), max_batch_size=0, origin="repo/m/config.pbtxt"
        ),
        "repo/m/config.pbtxt: max_batch_size is 0",
    ),
}


@pytest.mark.parametrize(("config", "reason"), DISABLED.values(), ids=DISABLED)
def test_batching_can_be_switched_off(tmp_path: Path, config: ModelConfig, reason: str) -> None:
    profile = probed(tmp_path, models.mlp(), config).profile
    assert not profile.batchable
    assert profile.reason.startswith(reason)


def test_max_batch_that_was_set_is_kept(tmp_path: Path) -> None:
    config = ModelConfig("m", BatchingConfig(max_batch=33))
    found = probed(tmp_path, models.mlp(), config)
    assert found.profile.max_batch == 33
    assert found.profile.max_batch_reason == "set by the configuration"
    assert [len(inputs["x"]) for inputs in found.batches] == [1, 2, 4, 8, 16, 32, 33]


def test_max_batch_size_bounds_the_search(tmp_path: Path) -> None:
    profile = probed(tmp_path, models.mlp(), ModelConfig("m", max_batch_size=6)).profile
    assert profile.max_batch <= 6
    assert profile.curve[-1].batch <= 6


def test_padding_is_probed_where_asked_for(tmp_path: Path) -> None:
    config = ModelConfig("m", PAD)
    assert probed(tmp_path, models.masked_mean()).profile.pad is None
    padded = probed(tmp_path, models.masked_mean(), config).profile
    assert padded.pad is not None
    assert padded.pad_reason == ""
    refused = probed(tmp_path, models.unmasked_mean(), config).profile
    assert refused.batchable
    assert refused.pad is None
    assert refused.pad_reason.startswith("padding changes the answer")
    unsafe = probed(tmp_path, models.softmax_over_batch(), config).profile
    assert unsafe.pad_reason == unsafe.reason


def test_model_that_answers_no_guess_still_loads(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["ids", "far"], ["beyond"]),
        helper.make_node("Gather", ["table", "beyond"], ["y"], axis=0),
    ]
    content = models.build(
        nodes,
        [models.tensor("ids", "INT64", ["n"])],
        [models.tensor("y", "FP32", ["n", 11])],
        {"table": np.zeros((5, 11), np.float32), "far": np.array(1000)},
    )
    found = probed(tmp_path, content)
    assert found.example == {}
    assert found.profile.curve == ()
    assert "no example input was found" in found.profile.reason
    assert "first failure: onnxruntime: operator Gather" in found.profile.reason


def sample(width: int) -> WarmUpSample:
    return WarmUpSample("usual", 2, {"x": WarmUpInput("FP32", (width,), "zero")})


def test_warm_up_sample_shows_what_the_model_accepts(tmp_path: Path) -> None:
    content = models.build(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [models.tensor("x", "FP32", ["n", "width"])],
        [models.tensor("y", "FP32", ["n", 41, 3])],
        {"shape": np.array([-1, 41, 3])},
    )
    assert not probed(tmp_path, content).profile.batchable
    config = ModelConfig("m", warm_up_samples=(sample(123),))
    found = probed(tmp_path, content, config)
    assert found.profile.batchable
    assert found.example["x"].shape == (1, 123)


def test_failing_warm_up_sample_fails_the_load(tmp_path: Path) -> None:
    config = ModelConfig("m", warm_up_samples=(sample(17),))
    with pytest.raises(
        LoadFailed, match="model_warmup 'usual' fails: onnxruntime: Got invalid dim"
    ):
        probed(tmp_path, models.mlp(), config)
    without = ModelConfig(
        "m", execution=ExecutionConfig(warm_up=False), warm_up_samples=(sample(17),)
    )
    assert probed(tmp_path, models.mlp(), without).profile.batchable


def test_unknown_rank_of_an_output_is_taken_from_what_was_seen(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Abs", ["shape"], ["target"]),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    content = models.build(nodes, [models.tensor("x", "FP32", ["n", 4])], [output])
    backend, found = opened_and_probed(tmp_path, content)
    assert backend.signature.outputs[0].shape == ("y[0]", "y[1]")
    assert found.profile.batchable


def test_dynamically_quantized_model_is_allowed_its_noise(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    content = models.build(
        nodes, [models.tensor("x", "FP32", ["n", 64])], [models.tensor("y", "FP32", ["n", 64])]
    )
    profile = probed(tmp_path, content).profile
    assert profile.batchable
    assert "share a quantization scale" in profile.max_batch_reason


def test_one_quick_run_is_enough(tmp_path: Path) -> None:
    backend, found = opened_and_probed(tmp_path, models.mlp())
    assert profiling.answers_within(backend, found.example, limit_s=60.0)
    assert not profiling.answers_within(backend, found.example, limit_s=0.0)
    profiling.warm_up(backend, found)
