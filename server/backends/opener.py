"""Opens what the optimizer made, by its manifest: the one way for serving and for measuring."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from optimizer import device
from optimizer.artifact import Artifact, read_artifact
from optimizer.engine_builder import ENGINE_FILE
from optimizer.engine_cache import profile_of_engine, why_not_here
from optimizer.errors import Unavailable
from optimizer.source import SourceModel, source_of
from optimizer.tensorrt_options import provider_options
from protos.signature import Signature, TensorSpec
from server.backends.base import Backend
from server.backends.model_file import ModelFile
from server.errors import LoadFailed
from server.model_config import ExecutionConfig

_NOTHING_SAID = ExecutionConfig()
_TENSORRT = ("tensorrt", "cuda")  # what TensorRT has no kernel for runs on CUDA
_BASELINE = ("cuda", "cpu")


def open_artifact(
    artifact: Artifact,
    threads: int,
    *,
    said: ExecutionConfig = _NOTHING_SAID,
    spins: bool | None = None,
) -> Backend:
    """Opens an artifact with so many compute threads.

    Of what an operator `said` only the GPU and the number of instances count: the rest is part of
    the artifact. `spins`: threads wait for each other by spinning; None: where there are several.

    Raises:
        Unavailable: its runtime, or a provider that it is made for, does not start here; why.
        LoadFailed: it cannot be opened, or has not the tensors that its manifest says.
    """
    spinning = threads > 1 if spins is None else spins
    return _OPENERS[artifact.runtime](artifact, threads, said, spinning)


def parts_of(artifact: Artifact) -> list[tuple[int | None, Artifact]]:
    """The artifacts of one that goes by batch size, with the largest batch of each.

    Raises:
        LoadFailed: its manifest names none.
        OptimizationError: one of them is damaged.
    """
    try:
        named = [(one["max_rows"], str(one["folder"])) for one in artifact.options["regimes"]]
    except (KeyError, TypeError) as error:
        raise LoadFailed(f"{artifact.folder}: no regimes in its manifest: {error!r}") from None
    return [(rows, read_artifact(artifact.folder / folder)) for rows, folder in named]


def _open_onnxruntime(
    artifact: Artifact, threads: int, said: ExecutionConfig, spins: bool
) -> Backend:
    opened = _open_session(artifact, _execution(artifact, said), threads, spins)
    if opened.fallback:
        opened.close()
        raise Unavailable(opened.fallback)
    return _with_signature(opened, artifact.signature)


def _open_session(
    artifact: Artifact, execution: ExecutionConfig, threads: int, spins: bool
) -> Backend:
    try:
        from server.backends.ort import open_onnx  # noqa: PLC0415
        from server.backends.providers import NotStarted  # noqa: PLC0415
    except ImportError as error:
        why = f"ONNX Runtime is not installed ({error}): install inflight[cpu] or inflight[gpu]"
        raise Unavailable(why) from None
    file = ModelFile(artifact.path, artifact.artifact_id, artifact.size_bytes)
    try:
        return open_onnx(file, execution, threads, spins=spins)
    except NotStarted as error:
        raise Unavailable(str(error)) from None


def _open_tensorrt(artifact: Artifact, threads: int, said: ExecutionConfig, spins: bool) -> Backend:
    if "built_for" in artifact.options:
        reason = why_not_here(artifact, device.read(), gpu=_gpu(said))
        if reason:
            raise Unavailable(f"the TensorRT engine does not fit this machine: {reason}")
    with ExitStack() as opened:
        engine = _open_engine(artifact, threads, said, spins)
        opened.callback(engine.close)
        if "baseline" in artifact.options:
            engine = _with_baseline(engine, artifact, threads, said, spins)
        opened.pop_all()
    return engine


def _open_engine(artifact: Artifact, threads: int, said: ExecutionConfig, spins: bool) -> Backend:
    if artifact.file != ENGINE_FILE:
        return _open_onnxruntime(artifact, threads, said, spins)
    from server.backends.tensorrt import open_engine  # noqa: PLC0415

    return _with_signature(open_engine(artifact, _gpu(said)), artifact.signature)


def _with_baseline(
    engine: Backend, artifact: Artifact, threads: int, said: ExecutionConfig, spins: bool
) -> Backend:
    """The engine, beside the model on CUDA or the CPU for the shapes that it is not for."""
    from server.backends.profiled import ProfiledBackend  # noqa: PLC0415

    profile = profile_of_engine(artifact)
    model = replace(artifact, file=artifact.options["baseline"])
    execution = ExecutionConfig(providers=_BASELINE, gpus=said.gpus)
    baseline = _open_session(model, execution, threads, spins)
    return ProfiledBackend(engine, _with_signature(baseline, artifact.signature), profile)


def _execution(artifact: Artifact, said: ExecutionConfig) -> ExecutionConfig:
    options: Mapping[str, Any] = artifact.options
    default = _TENSORRT if artifact.runtime == "tensorrt" else ("cpu",)
    return ExecutionConfig(
        graph_level=options.get("graph_level", "all"),
        providers=tuple(options.get("providers", default)),
        provider_options=_provider_options(artifact, said),
        gpus=said.gpus,
    )


def _provider_options(artifact: Artifact, said: ExecutionConfig) -> dict[str, dict[str, str]]:
    given = dict(artifact.options.get("provider_options", {}))
    if artifact.runtime != "tensorrt":
        return given
    own = provider_options(artifact, _gpu(said))
    return given | {"tensorrt": own | given.get("tensorrt", {})}


def _gpu(said: ExecutionConfig) -> int:
    return said.gpus[0] if said.gpus else 0


def _open_openvino(artifact: Artifact, threads: int, said: ExecutionConfig, spins: bool) -> Backend:
    from server.backends.openvino import open_openvino  # noqa: PLC0415

    return open_openvino(artifact, threads)


def _open_native(artifact: Artifact, threads: int, said: ExecutionConfig, spins: bool) -> Backend:
    from server.backends.native import open_native  # noqa: PLC0415

    file = ModelFile(artifact.path, artifact.artifact_id, artifact.size_bytes)
    source, samples = _source(artifact), _samples(artifact)
    opened = open_native(file, said, threads, spins=spins, source=source, samples=samples)
    return _with_signature(opened, artifact.signature)


def _source(artifact: Artifact) -> SourceModel:
    """By the file's name, as whoever allowed it to be opened judged it by that."""
    source = source_of(artifact.path)
    framework = artifact.options.get("framework", source.framework)
    if framework != source.framework:
        raise LoadFailed(f"'{artifact.file}' is a file of {source.framework}, not of {framework}")
    return source


def _samples(artifact: Artifact) -> Path | None:
    name = artifact.options.get("samples")
    return artifact.folder / name if name else None


def _open_by_batch(artifact: Artifact, threads: int, said: ExecutionConfig, spins: bool) -> Backend:
    from server.backends.by_batch import ByBatchBackend, Regime  # noqa: PLC0415

    with ExitStack() as opened:
        regimes: list[Regime] = []
        for max_rows, part in parts_of(artifact):
            backend = open_artifact(part, threads, said=said, spins=spins)
            opened.callback(backend.close)
            regimes.append(Regime(max_rows, backend))
        whole = ByBatchBackend(regimes, artifact.artifact_id)
        opened.pop_all()
    return _with_signature(whole, artifact.signature)


_OPENERS: Mapping[str, Callable[[Artifact, int, ExecutionConfig, bool], Backend]] = {
    "onnxruntime": _open_onnxruntime,
    "tensorrt": _open_tensorrt,
    "openvino": _open_openvino,
    "native": _open_native,
    "by_batch": _open_by_batch,
}


def _with_signature(backend: Backend, wanted: Signature | None) -> Backend:
    """The backend with the manifest's words for its tensors, where it has any.

    Raises:
        LoadFailed: those are not its tensors; it is closed.
    """
    if wanted is None:
        return backend
    own = backend.signature
    required = tuple(spec for spec in own.inputs if not spec.optional)
    problem = (
        _missing("input", wanted.inputs, own.inputs)
        or _missing("output", wanted.outputs, own.outputs)
        or _missing("input", required, wanted.inputs)
    )
    if problem:
        backend.close()
        raise LoadFailed(f"'{backend.artifact_id}': {problem}")
    backend.signature = wanted
    return backend


def _missing(kind: str, wanted: tuple[TensorSpec, ...], there: tuple[TensorSpec, ...]) -> str:
    datatypes = {spec.name: spec.datatype for spec in there}
    for spec in wanted:
        if datatypes.get(spec.name) != spec.datatype:
            return f"expected {kind} '{spec.name}' {spec.datatype}, there are {datatypes}"
    return ""
