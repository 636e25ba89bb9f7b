"""The table of formats: which backend opens which file. One file per framework beside this one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from optimizer.artifact import MANIFEST, read_artifact
from optimizer.errors import OptimizationError
from optimizer.source import FRAMEWORKS
from server.backends.base import Backend
from server.backends.model_file import ModelFile, inspect_native, inspect_onnx
from server.errors import LoadFailed
from server.model_config import ExecutionConfig


class OpenBackend(Protocol):
    """Opens a model file with so many compute threads. Raises LoadFailed.

    `spins`: during a run its threads wait for each other by spinning, where the framework can.
    """

    def __call__(
        self, file: ModelFile, execution: ExecutionConfig, threads: int, *, spins: bool = False
    ) -> Backend: ...


def _is_told_to_stay(execution: ExecutionConfig) -> bool:
    return execution.providers in (None, ("cpu",))


@dataclass(frozen=True, slots=True)
class Format:
    """How files of one kind are looked into and opened."""

    inspect: Callable[[Path], ModelFile]
    open: OpenBackend
    is_run_by_caller: bool = False  # with one thread, `run` computes on the thread that calls it
    # Opened with one thread, it starts neither threads nor a process that compute for it.
    starts_nothing: Callable[[ExecutionConfig], bool] = _is_told_to_stay


def _open_onnx(
    file: ModelFile, execution: ExecutionConfig, threads: int, *, spins: bool = False
) -> Backend:
    # Imported when it is needed: the registry knows formats, and frameworks are large.
    from server.backends.ort import open_onnx  # noqa: PLC0415

    return open_onnx(file, execution, threads, spins=spins)


def _onnx_stays_on_cpu(execution: ExecutionConfig) -> bool:
    from server.backends.ort import stays_on_cpu  # noqa: PLC0415

    return stays_on_cpu(execution)


def _open_native(
    file: ModelFile, execution: ExecutionConfig, threads: int, *, spins: bool = False
) -> Backend:
    from server.backends.native import open_native  # noqa: PLC0415

    return open_native(file, execution, threads, spins=spins)


_NATIVE = Format(inspect_native, _open_native, starts_nothing=lambda _: False)

FORMATS: dict[str, Format] = {
    ".onnx": Format(inspect_onnx, _open_onnx, True, _onnx_stays_on_cpu),
    **{suffix: _NATIVE for suffix in FRAMEWORKS if suffix != ".onnx"},
}


def format_of(path: Path) -> Format:
    """The format of a model file, by its suffix; of a folder by what is in it.

    Raises:
        LoadFailed: no backend opens such files, or an artifact's manifest is damaged.
    """
    if (path / MANIFEST).is_file():
        return _format_of_artifact(path)
    if path.is_dir():
        return _NATIVE
    found = FORMATS.get(path.suffix)
    if found is None:
        raise LoadFailed(f"no backend opens '{path.name}', expected a file {' or '.join(FORMATS)}")
    return found


def _format_of_artifact(folder: Path) -> Format:
    from server.backends.stored import format_of_artifact  # noqa: PLC0415

    try:
        return format_of_artifact(read_artifact(folder))
    except OptimizationError as error:
        raise LoadFailed(str(error)) from None
