"""Generates the stubs of every .proto below this folder: `python -m protos.generate [--check]`.

Beside each `x.proto` it writes `x_pb2.py` and `x_pb2.pyi`. protoc's output is changed in three
places: third-party packages go to the pool of `protos/pool.py`, imports of stubs name the folder
they lie in, and types that protoc leaves open are filled in, so that mypy --strict accepts them.
The versions of grpcio-tools and its protoc are locked, so running it twice changes nothing.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class ProtoFolder:
    """A folder of .proto files, and the path protoc knows them by (their name in reflection)."""

    folder: str  # below the repository's root
    import_path: str  # "" for file names without a folder
    private_pool: bool

    def import_name(self, proto: Path) -> str:
        return str(PurePosixPath(self.import_path) / proto.name)

    @property
    def protos(self) -> list[Path]:
        return sorted((ROOT / self.folder).glob("*.proto"))

    @property
    def protoc_path(self) -> str:
        """The virtual mapping for protoc; its output then lies in the virtual folder."""
        return f"{self.import_path}={ROOT / self.folder}"

    @property
    def package(self) -> str:
        return self.folder.replace("/", ".")


FOLDERS = (
    ProtoFolder("protos", "protos", private_pool=False),
    # tritonclient's file names: KServe's and Triton's tools look for them in reflection.
    ProtoFolder("protos/inference", "", private_pool=True),
    ProtoFolder("protos/health", "grpc/health/v1", private_pool=True),
    ProtoFolder("protos/reflection/v1", "grpc/reflection/v1", private_pool=True),
    ProtoFolder("protos/reflection/v1alpha", "grpc/reflection/v1alpha", private_pool=True),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Generate the protobuf stubs.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if they differ")
    check = parser.parse_args(arguments).check
    changed = {path: text for path, text in generate().items() if _read(path) != text}
    for path, text in changed.items():
        print(f"{'stale' if check else 'wrote'} {path.relative_to(ROOT)}", file=sys.stderr)
        if not check:
            path.write_text(text)
    return 1 if check and changed else 0


def generate() -> dict[Path, str]:
    """The text of every stub by the path it belongs to. Raises RuntimeError if protoc fails."""
    stubs: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as out:
        _run_protoc(Path(out))
        for folder in FOLDERS:
            for proto in folder.protos:
                stubs |= _stubs_of(folder, proto, Path(out))
    return stubs


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _run_protoc(out: Path) -> None:
    names = [folder.import_name(proto) for folder in FOLDERS for proto in folder.protos]
    paths = [f"--proto_path={folder.protoc_path}" for folder in FOLDERS]
    if protoc.main(["protoc", *paths, f"--python_out={out}", f"--pyi_out={out}", *names]):
        raise RuntimeError("protoc failed; its message is above")


def _stubs_of(folder: ProtoFolder, proto: Path, out: Path) -> Iterable[tuple[Path, str]]:
    stem = f"{proto.stem}_pb2"
    generated = out / folder.import_path
    code, types = (generated / f"{stem}{suffix}" for suffix in (".py", ".pyi"))
    yield proto.with_name(code.name), _placed(folder, stem, code.read_text())
    yield proto.with_name(types.name), _placed(folder, stem, _strict(types.read_text()))


def _placed(folder: ProtoFolder, stem: str, text: str) -> str:
    """The stub as a module of its folder, in its pool."""
    protoc_module = ".".join([*PurePosixPath(folder.import_path).parts, stem])
    text = text.replace(f"'{protoc_module}'", f"'{folder.package}.{stem}'")
    text = re.sub(r"^import (\w+_pb2) as", rf"from {folder.package} import \1 as", text, flags=re.M)
    if not folder.private_pool:
        return text
    return text.replace("_descriptor_pool.Default()", "_pool.POOL").replace(
        "from google.protobuf import descriptor_pool as _descriptor_pool",
        "from protos import pool as _pool",
    )


def _strict(types: str) -> str:
    """Types what protoc leaves open: a message given as a dict, a field named like a keyword."""
    typed = re.sub(r"_Mapping(?=[\],])", "_Mapping[str, _Any]", types)
    typed = typed.replace("**kwargs)", "**kwargs: _Any)")
    return typed if typed == types else "from typing import Any as _Any\n" + typed


if __name__ == "__main__":
    sys.exit(main())
