"""Openers that child processes find by their names: TensorRT's provider, computing on the CPU."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from optimizer.artifact import Artifact
from optimizer.engine_builder import ENGINE_FILE, MODEL_FILE
from optimizer.engine_cache import profile_of_engine
from optimizer.errors import Unavailable
from optimizer.runner import Runner
from optimizer.tensorrt_options import ENGINES
from protos.signature import Signature
from protos.tensors import Array
from server.backends.opener import open_artifact


def provider(artifact: Artifact, threads: int) -> Runner:
    """Leaves an engine behind when it is told where to keep times."""
    if artifact.runtime != "tensorrt":
        return open_artifact(artifact, threads)
    if "timing" in artifact.options:
        (artifact.folder / ENGINES / "of_the_provider.engine").write_bytes(b"engine")
    return _Strict(artifact, threads)


def builds_nothing(artifact: Artifact, threads: int) -> Runner:
    """Engines are there, or the job fails."""
    assert "timing" not in artifact.options, "nothing is to be built"
    return provider(artifact, threads)


def without_provider(artifact: Artifact, threads: int) -> Runner:
    """TensorRT's own engines run, those of ONNX Runtime's provider do not."""
    if artifact.runtime == "tensorrt" and artifact.file != ENGINE_FILE:
        raise Unavailable("libnvinfer.so.10: cannot open shared object file")
    return provider(artifact, threads)


class _Strict:
    """The model itself, which takes nothing that an engine would not take."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._profile = profile_of_engine(artifact)
        model = replace(artifact, runtime="onnxruntime", file=MODEL_FILE, options={})
        self._runner = open_artifact(model, threads)
        self.threads = threads

    @property
    def signature(self) -> Signature:
        return self._runner.signature

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        reason = self._profile.why_not({name: array.shape for name, array in inputs.items()})
        assert not reason, reason
        return self._runner.run(inputs, output_names)

    def close(self) -> None:
        self._runner.close()
