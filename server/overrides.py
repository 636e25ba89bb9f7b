"""What a load call may bring along instead of the repository's files, as Triton defines it.

`config` is a configuration in JSON and stands for the file in the model's folder. Files come as
"<version>/<name>" and stand for the whole folder, so they need a `config` too: nothing on disk
is looked at then.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Overrides:
    """The content of one load call."""

    config: str | None = None  # JSON
    files: Mapping[str, bytes] = field(default_factory=dict)  # "1/model.onnx" -> content

    def check(self) -> None:
        """Raises InvalidRequest unless the files have a config and names inside the folder."""
        if self.files and self.config is None:
            raise InvalidRequest(
                "file overrides need a 'config' override as well:"
                " with files given, the repository's own are not read"
            )
        for name in self.files:
            version, _, path = name.partition("/")
            is_version = version.isascii() and version.isdigit() and version[0] != "0"
            if not is_version or not _is_inside(path):
                problem = "expected file:<version>/<file name>, the version a positive integer"
                raise InvalidRequest(f"file override 'file:{name}': {problem}")

    def write(self, model: str) -> Path:
        """Puts the files into a new folder, which belongs to the caller; blocks."""
        folder = Path(tempfile.mkdtemp(prefix="inflight-override-")) / model
        folder.mkdir()
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder


NO_OVERRIDES = Overrides()


def _is_inside(path: str) -> bool:
    parts = path.split("/")
    return "\\" not in path and "\0" not in path and not {"", ".", ".."} & set(parts)
