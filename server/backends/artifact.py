"""What can be told from a model file before a framework opens it."""

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.errors import LoadFailed

# How a TensorProto in a file names the file of its data: StringStringEntryProto{key=1, value=2}
# with key "location" (onnx.proto, field 13 `external_data`).
_LOCATION = b"\n\x08location\x12"
# Operators that take their activation scale from the whole tensor, thus from all rows of a batch.
_DYNAMIC_QUANTIZATION = (b"DynamicQuantize", b"QAttention")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One stored model: its identity and its size."""

    path: Path
    artifact_id: str  # "onnx-" and 12 hex digits of the hash of its content
    size_bytes: int  # all of its files together
    is_dynamically_quantized: bool = False  # rows of a batch share their quantization scale


def inspect_onnx(path: Path) -> Artifact:
    """Reads an ONNX file and its external data once, for its identity.

    Raises:
        LoadFailed: the file, or a file it refers to, is missing or empty.
    """
    if not path.is_file():
        raise LoadFailed(f"'{path}' is not a file: put the model there")
    if not path.stat().st_size:
        raise LoadFailed(f"'{path}' is empty: copy or export the model again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        external = sorted(set(_locations(content)))
        is_dynamic = any(content.find(name) >= 0 for name in _DYNAMIC_QUANTIZATION)
    files = [path, *(_external(path, location) for location in external)]
    return Artifact(
        path,
        f"onnx-{_digest(files)[:12]}",
        sum(file.stat().st_size for file in files),
        is_dynamic,
    )


def _locations(content: mmap.mmap) -> Iterator[str]:
    """The names of external data files; longer than 127 bytes they are left to the framework."""
    position = content.find(_LOCATION)
    while position >= 0:
        start = position + len(_LOCATION) + 1
        raw = content[start : start + content[start - 1]]
        if content[start - 1] < 128 and raw.isascii():
            yield raw.decode()
        position = content.find(_LOCATION, start)


def _external(path: Path, location: str) -> Path:
    file = path.parent / location
    if not file.is_file():
        raise LoadFailed(
            f"'{path.name}' keeps weights in '{location}', which is missing: put it in"
            f" '{file.parent}'"
        )
    return file


def _digest(files: list[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
