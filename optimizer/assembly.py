"""Puts runnable forms of a model together: values, and folders that hold all they need."""

import shutil
from dataclasses import replace
from pathlib import Path

from optimizer.artifact import Artifact
from optimizer.candidate import Candidate
from optimizer.selection import Regime
from optimizer.source import SourceModel
from protos.signature import Signature


def artifact_of(
    candidate: Candidate, source: SourceModel, file: Path, signature: Signature
) -> Artifact:
    """The artifact of a candidate whose runtime opens `file`."""
    return Artifact(
        file.parent,
        file.name,
        candidate.runtime,
        what(candidate),
        techniques_of(candidate, source),
        dict(candidate.options),
        signature,
    )


def techniques_of(candidate: Candidate, source: SourceModel) -> tuple[str, ...]:
    """What made it, in order."""
    is_converted = source.framework != "onnx" and candidate.runtime != "native"
    first = ("onnx_conversion",) if is_converted else ()
    return (*first, *(name for name in candidate.techniques if name not in first))


def what(candidate: Candidate) -> str:
    """The begin of an artifact's id, of lower-case letters, digits and "_"."""
    if candidate.steps:
        return candidate.steps[-1].name
    return "onnx" if candidate.runtime == "onnxruntime" else candidate.runtime


def pack(artifact: Artifact, folder: Path) -> Artifact:
    """Copies an artifact's files to an empty folder of their own, with its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    if artifact.owns_folder:
        # Without the files' modes: those of the store are read-only, and the manifest is replaced.
        copy = shutil.copyfile
        shutil.copytree(artifact.folder, folder, dirs_exist_ok=True, copy_function=copy)
    elif artifact.path.is_dir():
        shutil.copytree(artifact.path, folder / artifact.file)
    else:
        _copy_model(artifact.path, folder / artifact.file)
    packed = replace(artifact, folder=folder)
    packed.write()
    return packed


def pack_regimes(regimes: tuple[Regime, ...], folder: Path) -> Artifact:
    """An artifact of several, each for batches of up to so many rows."""
    packed = [
        (regime, pack(regime.outcome.artifact, folder / f"regime{number}"))
        for number, regime in enumerate(regimes, 1)
        if regime.outcome.artifact is not None
    ]
    options = [{"max_rows": regime.max_rows, "folder": part.folder.name} for regime, part in packed]
    first = packed[0][1]
    techniques = dict.fromkeys(name for _, part in packed for name in part.techniques)
    together = Artifact(
        folder,
        first.folder.name,
        "by_batch",
        "by_batch",
        tuple(techniques),
        {"regimes": options},
        first.signature,
    )
    together.write()
    return together


def _copy_model(source: Path, target: Path) -> None:
    if source.suffix != ".onnx":
        shutil.copyfile(source, target)
        return
    from optimizer.passes.onnx_files import copy  # noqa: PLC0415  imports onnx

    copy(source, target)
