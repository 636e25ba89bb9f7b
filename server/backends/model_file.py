"""What can be told from a model file before a framework opens it."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optimizer.errors import OptimizationError
from optimizer.source import source_of
from server.errors import LoadFailed

# How a TensorProto in a file names the file of its data: StringStringEntryProto{key=1, value=2}
# with key "location" (onnx.proto, field 13 `external_data`); the value's length is one byte.
_LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f])", re.DOTALL)
# Operators that take their activation scale from the whole tensor, thus from all rows of a batch.
_DYNAMIC_QUANTIZATION = (b"DynamicQuantize", b"QAttention")
_CHUNK = 2**20  # small enough that a search does not hold the interpreter lock noticeably
_OVERLAP = 2**8  # longest thing searched for


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One stored model: its identity and its size."""

    path: Path
    artifact_id: str  # "onnx-" and 12 hex digits of the hash of its content
    size_bytes: int  # all of its files together
    is_dynamically_quantized: bool = False  # rows of a batch share their quantization scale
    is_low_precision: bool = False  # computed with fewer bits than the model's tensors have
    threads: int | None = None  # of one run, where that was measured to be best


def inspect_onnx(path: Path) -> ModelFile:
    """Reads an ONNX file and its external data once, for its identity.

    Files that it refers to and that are missing are left for the framework to report.

    Raises:
        LoadFailed: the file is missing or empty.
    """
    if not path.is_file():
        raise LoadFailed(f"'{path}' is not a file: put the model there")
    if not path.stat().st_size:
        raise LoadFailed(f"'{path}' is empty: copy or export the model again")
    digest = hashlib.sha256()
    locations: set[str] = set()
    is_dynamic = False
    for chunk, window in _chunks(path):
        digest.update(chunk)
        locations.update(_locations(window))
        is_dynamic = is_dynamic or any(name in window for name in _DYNAMIC_QUANTIZATION)
    external = [file for name in sorted(locations) if (file := path.parent / name).is_file()]
    for file in external:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    size_bytes = sum(file.stat().st_size for file in (path, *external))
    return ModelFile(path, f"onnx-{digest.hexdigest()[:12]}", size_bytes, is_dynamic)


def inspect_native(path: Path) -> ModelFile:
    """The identity and the size of a model's file or SavedModel folder.

    Raises:
        LoadFailed: it is missing or empty.
    """
    try:
        source = source_of(path)
    except OptimizationError as error:
        raise LoadFailed(str(error)) from None
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    size_bytes = sum(file.stat().st_size for file in files)
    if not size_bytes:
        raise LoadFailed(f"'{path}' is empty: copy or export the model again")
    return ModelFile(path, f"{source.framework}-{source.fingerprint()[:12]}", size_bytes)


def _chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """The file piece by piece; and each piece behind the end of the one before, for searches."""
    end = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk, end + chunk
            end = chunk[-_OVERLAP:]


def _locations(window: bytes) -> Iterator[str]:
    """The names of external data files, unless longer than 127 bytes or not ASCII."""
    for match in _LOCATION.finditer(window):
        raw = window[match.end() : match.end() + match[1][0]]
        if len(raw) == match[1][0] and raw.isascii():
            yield raw.decode()
