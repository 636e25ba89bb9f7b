import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from optimizer.artifact import Artifact
from optimizer.device import Device, Gpu
from optimizer.engine_builder import BuildOrder, ProviderBuilder, TensorRtBuilder
from optimizer.engine_cache import EngineCache, profile_of_engine, why_not_here
from optimizer.engine_key import EngineKey, key_here, library_version
from optimizer.errors import OptimizationError, PassError, Unavailable
from optimizer.shape_profile import ShapeProfile, ShapeRange
from optimizer.store import ArtifactStore
from optimizer.tensorrt_options import provider_options
from server.backends.opener import open_artifact
from tests.unit.optimizer.fake_tensorrt import FakeTensorRt

PROFILE = ShapeProfile({"x": ShapeRange((1, 3), (8, 3), (8, 3)), "y": ShapeRange((2,), (2,), (2,))})
GPU = Gpu("NVIDIA H200", 143_771, "9.0", "580.65.06")
DEVICE = Device(
    "cpu", 8, 1000, gpus=(GPU,), versions={"tensorrt-cu13": "10.13.3", "onnxruntime-gpu": "1.31.1"}
)
KEY = key_here(DEVICE, "abc", PROFILE, "fp16", workspace_bytes=1 << 30)


@pytest.fixture(autouse=True)
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> type[FakeTensorRt]:
    for name in ("inputs", "refuses_profile", "error", "builds"):
        monkeypatch.setattr(FakeTensorRt, name, getattr(FakeTensorRt, name))
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRt("tensorrt"))
    return FakeTensorRt


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "source.onnx"
    path.write_bytes(b"model")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(ArtifactStore(tmp_path / "store"), tmp_path / "timing")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def build(cache: EngineCache, model: Path, work: Path, key: EngineKey = KEY) -> Artifact:
    return cache.find_or_build(model, key, TensorRtBuilder(), work)


# Keys


def test_key_of_this_machine() -> None:
    assert KEY.parts() == {
        "model": "abc",
        "shapes": "x 1x3..8x3..8x3, y 2..2..2",
        "precision": "fp16",
        "GPU": "NVIDIA H200",
        "compute capability": "9.0",
        "driver": "580.65.06",
        "TensorRT": "10.13.3",
        "ONNX Runtime": "1.31.1",
        "workspace": str(1 << 30),
        "builder level": "",
    }


def test_key_without_onnxruntime_or_a_package_of_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optimizer.engine_key.library_version", lambda: "10.9.0")
    bare = replace(DEVICE, versions={})
    key = key_here(bare, "abc", PROFILE, "fp32", uses_onnxruntime=False)
    assert (key.tensorrt, key.onnxruntime) == ("10.9.0", "")


def test_version_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> SimpleNamespace:
        if name == "libnvinfer.so.10":
            raise OSError("no such file")
        return SimpleNamespace(getInferLibVersion=lambda: 110401)

    monkeypatch.setattr("ctypes.CDLL", load)
    assert library_version() == "11.4.1"


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (replace(DEVICE, gpus=()), "needs GPU 0, this machine has 0"),
        (replace(DEVICE, versions={}), "TensorRT is not installed"),
    ],
)
def test_no_key_without_gpu_or_tensorrt(
    device: Device, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimizer.engine_key.library_version", lambda: "")
    with pytest.raises(Unavailable, match=reason):
        key_here(device, "abc", PROFILE, "fp32")


# The cache


def test_engines_are_built_once(
    cache: EngineCache, model: Path, work: Path, tensorrt: type[FakeTensorRt]
) -> None:
    engine = build(cache, model, work)
    assert engine.runtime == "tensorrt"
    assert engine.techniques == ("tensorrt", "fp16")
    assert profile_of_engine(engine) == PROFILE
    again = build(cache, model, work)
    assert again == replace(engine, options=again.options)
    assert tensorrt.builds == 1
    assert cache.find(KEY).engine == again


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"gpu": "NVIDIA L4"}, "GPU was 'NVIDIA H200' and is 'NVIDIA L4'"),
        ({"compute_capability": "8.9"}, "compute capability was '9.0' and is '8.9'"),
        ({"driver": "590.1"}, "driver was '580.65.06' and is '590.1'"),
        ({"tensorrt": "10.14.0"}, "TensorRT was '10.13.3' and is '10.14.0'"),
        ({"onnxruntime": "1.32.0"}, "ONNX Runtime was '1.31.1' and is '1.32.0'"),
        ({"precision": "fp32"}, "precision was 'fp16' and is 'fp32'"),
        ({"model": "xyz"}, "model was 'abc' and is 'xyz'"),
        ({"workspace_bytes": 1}, "workspace was '1073741824' and is '1'"),
        ({"level": 5}, "builder level was '' and is '5'"),
        (
            {"profile": ShapeProfile({"x": ShapeRange((1, 3), (8, 3), (9, 3))})},
            "shapes was 'x 1x3..8x3..8x3, y 2..2..2' and is 'x 1x3..8x3..9x3'",
        ),
    ],
)
def test_a_miss_names_what_changed(
    cache: EngineCache, model: Path, work: Path, changed: dict[str, object], reason: str
) -> None:
    build(cache, model, work)
    key = replace(KEY, **changed)  # type: ignore[arg-type]
    assert cache.find(key).reason == reason
    assert cache.find(KEY).reason == ""


def test_why_it_is_built_is_in_the_log(
    cache: EngineCache, model: Path, work: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    build(cache, model, work)
    assert "a TensorRT engine is built: nothing of this kind was stored before" in caplog.text
    build(cache, model, work, replace(KEY, gpu="NVIDIA L4"))
    assert "a TensorRT engine is built: GPU was 'NVIDIA H200' and is" in caplog.text


def test_damaged_engines_are_built_again(
    cache: EngineCache, model: Path, work: Path, tensorrt: type[FakeTensorRt]
) -> None:
    engine = build(cache, model, work)
    engine.path.chmod(0o644)
    engine.path.write_bytes(b"half of an eng")
    assert build(cache, model, work).path.read_bytes() != b"half of an eng"
    assert tensorrt.builds == 2


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (DEVICE, ""),
        (
            replace(DEVICE, gpus=(replace(GPU, name="NVIDIA L4", compute_capability="8.9"),)),
            "GPU was 'NVIDIA H200' and is 'NVIDIA L4'; compute capability was '9.0' and is '8.9'",
        ),
        (
            replace(DEVICE, gpus=(replace(GPU, driver="590.1"),)),
            "driver was '580.65.06' and is '590.1'",
        ),
        (
            replace(DEVICE, versions=dict(DEVICE.versions) | {"tensorrt-cu13": "10.14.0"}),
            "TensorRT was '10.13.3' and is '10.14.0'",
        ),
        (
            replace(DEVICE, versions=dict(DEVICE.versions) | {"onnxruntime-gpu": "1.32.0"}),
            "ONNX Runtime was '1.31.1' and is '1.32.0'",
        ),
    ],
)
def test_engines_of_other_machines_are_known_without_loading_them(
    cache: EngineCache, model: Path, work: Path, device: Device, reason: str
) -> None:
    engine = build(cache, model, work)
    assert why_not_here(engine, device) == reason


def test_the_server_refuses_an_engine_of_another_machine(
    cache: EngineCache, model: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build(cache, model, work)
    other = replace(DEVICE, gpus=(replace(GPU, name="NVIDIA L4"),))
    monkeypatch.setattr("optimizer.device.read", lambda: other)
    with pytest.raises(Unavailable, match="does not fit this machine: GPU was 'NVIDIA H200'"):
        open_artifact(engine, 1)


def test_what_is_no_engine_is_said_to_be_none(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, "model.onnx", "onnxruntime", "x")
    with pytest.raises(OptimizationError, match="does not say what it is built for"):
        why_not_here(artifact, DEVICE)
    with pytest.raises(OptimizationError, match="no shape profile"):
        profile_of_engine(artifact)


def test_times_are_kept_by_gpu_and_version(
    cache: EngineCache, model: Path, work: Path, tmp_path: Path
) -> None:
    build(cache, model, work)
    second = build(cache, model, work, replace(KEY, precision="bf16"))
    assert json.loads(second.path.read_bytes())["known times"] == "+"
    other = build(cache, model, work, replace(KEY, tensorrt="10.14.0"))
    assert json.loads(other.path.read_bytes())["known times"] == ""
    folders = {path.name for path in (tmp_path / "timing").iterdir()}
    assert folders == {"NVIDIA_H200_sm9.0_trt10.13.3", "NVIDIA_H200_sm9.0_trt10.14.0"}


# TensorRT's own builder


def order(model: Path, tmp_path: Path, key: EngineKey = KEY) -> BuildOrder:
    (tmp_path / "out").mkdir()
    return BuildOrder(model, key, tmp_path / "out", tmp_path / "timing")


def test_what_tensorrt_is_asked_for(model: Path, tmp_path: Path) -> None:
    engine = TensorRtBuilder().build(order(model, tmp_path, replace(KEY, level=5)))
    assert json.loads(engine.path.read_bytes()) == {
        "flags": ["FP16"],
        "WORKSPACE": 1 << 30,
        "shapes": {"x": [[1, 3], [8, 3], [8, 3]]},
        "known times": "",
        "network": 0,
        "level": 5,
    }


@pytest.mark.parametrize(
    ("precision", "flags", "network"), [("fp32", [], 0), ("bf16", ["BF16"], 0), ("int8", [], 2)]
)
def test_precisions(
    model: Path, tmp_path: Path, precision: str, flags: list[str], network: int
) -> None:
    key = replace(KEY, precision=precision)  # type: ignore[arg-type]
    asked = json.loads(TensorRtBuilder().build(order(model, tmp_path, key)).path.read_bytes())
    assert (asked["flags"], asked["network"]) == (flags, network)


def test_tensorrt_11_takes_precision_from_the_model(
    model: Path, tmp_path: Path, tensorrt: type[FakeTensorRt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "BuilderFlag", SimpleNamespace())
    with pytest.raises(Unavailable, match="convert it to fp16 first"):
        TensorRtBuilder().build(order(model, tmp_path))


def test_unsuitable_times_are_begun_anew(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "timing").mkdir()
    (tmp_path / "timing" / "builder.timing").write_bytes(b"of another GPU")
    TensorRtBuilder().build(order(model, tmp_path))
    assert "is not of this GPU and TensorRT" in caplog.text
    assert [path.read_bytes() for path in (tmp_path / "timing").iterdir()] == [b"+"]


def test_a_model_that_cannot_be_read(model: Path, tmp_path: Path) -> None:
    model.write_bytes(b"not a model")
    with pytest.raises(PassError, match="cannot read the model: unsupported operator: Foo"):
        TensorRtBuilder().build(order(model, tmp_path))


def test_a_build_that_fails_says_why(
    model: Path, tmp_path: Path, tensorrt: type[FakeTensorRt]
) -> None:
    tensorrt.error = "out of workspace"
    with pytest.raises(PassError, match="builds no engine: out of workspace"):
        TensorRtBuilder().build(order(model, tmp_path))


def test_a_failed_build_stores_nothing(
    cache: EngineCache, model: Path, work: Path, tensorrt: type[FakeTensorRt]
) -> None:
    tensorrt.error = "out of workspace"
    with pytest.raises(PassError):
        build(cache, model, work)
    assert cache.find(KEY).engine is None


def test_a_profile_that_is_refused(
    model: Path, tmp_path: Path, tensorrt: type[FakeTensorRt]
) -> None:
    tensorrt.refuses_profile = True
    with pytest.raises(PassError, match="refuses x 1x3"):
        TensorRtBuilder().build(order(model, tmp_path))


def test_an_input_that_tensorrt_does_not_know(
    model: Path, tmp_path: Path, tensorrt: type[FakeTensorRt]
) -> None:
    tensorrt.inputs = {"z": "data"}
    with pytest.raises(PassError, match="input 'x': TensorRT refuses"):
        TensorRtBuilder().build(order(model, tmp_path))


def test_inputs_that_are_shapes_are_refused(
    model: Path, tmp_path: Path, tensorrt: type[FakeTensorRt]
) -> None:
    tensorrt.inputs = {"x": "data", "size": "shape"}
    with pytest.raises(PassError, match="input 'size' decides on shapes by its values"):
        TensorRtBuilder().build(order(model, tmp_path))


def test_without_tensorrt_it_is_unavailable(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(Unavailable, match="TensorRT does not start"):
        TensorRtBuilder().build(order(model, tmp_path))


# ONNX Runtime's provider


class FakeProvider:
    """What a session with the provider does as far as the builder sees: leaves files."""

    def __init__(self, leaves: str = "TensorrtExecutionProvider_1_0_sm90.engine") -> None:
        self.leaves, self.options = leaves, dict[str, str]()

    def __call__(self, artifact: Artifact, threads: int) -> "FakeProvider":
        self.options = provider_options(artifact)
        (Path(self.options["trt_engine_cache_path"]) / self.leaves).write_bytes(b"engine")
        return self

    def close(self) -> None:
        pass


def test_engines_of_the_provider_travel_with_the_model(
    cache: EngineCache, model: Path, work: Path, tmp_path: Path
) -> None:
    model.with_name("source.onnx.data").write_bytes(b"weights")
    provider = FakeProvider()
    builder = ProviderBuilder(provider)  # type: ignore[arg-type]
    engine = cache.find_or_build(model, KEY, builder, work)
    assert provider.options.pop("trt_engine_cache_path").startswith(str(work))
    assert provider.options == {
        "device_id": "0",
        "trt_fp16_enable": "1",
        "trt_max_workspace_size": str(1 << 30),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path / "timing" / "NVIDIA_H200_sm9.0_trt10.13.3"),
        "trt_profile_min_shapes": "x:1x3",
        "trt_profile_opt_shapes": "x:8x3",
        "trt_profile_max_shapes": "x:8x3",
        "trt_engine_cache_enable": "1",
    }
    served = provider_options(engine, gpu=1)
    assert served["device_id"] == "1"
    assert served["trt_engine_cache_path"] == str(engine.folder / "engines")
    assert "trt_timing_cache_path" not in served
    assert engine.path.read_bytes() == b"model"
    assert (engine.folder / "source.onnx.data").read_bytes() == b"weights"


def test_a_model_of_which_the_provider_takes_nothing(
    cache: EngineCache, model: Path, work: Path
) -> None:
    builder = ProviderBuilder(FakeProvider(leaves="other.txt"))  # type: ignore[arg-type]
    with pytest.raises(PassError, match="took over no part of the model"):
        cache.find_or_build(model, KEY, builder, work)


def test_options_of_an_artifact_that_says_little(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, "m.onnx", "tensorrt", "x", options={"precision": "fp32"})
    assert provider_options(artifact) == {"device_id": "0"}
    options = {"precision": "int8", "level": 2}
    assert provider_options(replace(artifact, options=options)) == {
        "device_id": "0",
        "trt_int8_enable": "1",
        "trt_builder_optimization_level": "2",
    }


def test_names_that_the_provider_would_misread(tmp_path: Path) -> None:
    profile = ShapeProfile({"input:0": PROFILE.inputs["x"]})
    options = {"profile": profile.to_json()}
    artifact = Artifact(tmp_path, "m.onnx", "tensorrt", "x", options=options)
    with pytest.raises(Unavailable, match="cannot be told of 'input:0'"):
        provider_options(artifact)
