"""The stubs: regenerated alike, equal to the protocols' own, and at peace with tritonclient."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from tritonclient.grpc import model_config_pb2 as triton_config
from tritonclient.grpc import service_pb2 as triton_service

from protos import generate
from protos.inference import grpc_service_pb2, model_config_pb2
from protos.pool import POOL


def _proto(file: FileDescriptor) -> descriptor_pb2.FileDescriptorProto:
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def test_committed_stubs_are_what_generate_writes() -> None:
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("ours", "tritons"),
    [
        (grpc_service_pb2.DESCRIPTOR, triton_service.DESCRIPTOR),
        (model_config_pb2.DESCRIPTOR, triton_config.DESCRIPTOR),
    ],
    ids=["grpc_service.proto", "model_config.proto"],
)
def test_open_inference_definitions_equal_tritonclients(
    ours: FileDescriptor, tritons: FileDescriptor
) -> None:
    assert _proto(ours) == _proto(tritons)


def test_every_message_is_built_in_the_private_pool() -> None:
    request = grpc_service_pb2.ModelInferRequest()
    assert request.DESCRIPTOR.file.pool is POOL
    assert type(request).__module__ == "protos.inference.grpc_service_pb2"


_OURS = "import protos.inference.grpc_service_pb2, protos.health.health_pb2"
_THEIRS = "import tritonclient.grpc"


@pytest.mark.parametrize("imports", [(_OURS, _THEIRS), (_THEIRS, _OURS)], ids=["ours", "theirs"])
def test_tritonclient_and_our_stubs_share_a_process_imported_first(
    imports: tuple[str, str],
) -> None:
    subprocess.run([sys.executable, "-c", "\n".join(imports)], check=True)


@pytest.mark.slow
def test_stubs_load_under_protobuf_7(tmp_path: Path) -> None:
    """tritonclient keeps this environment at protobuf 6, so 7 comes from the package index."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path)]
    subprocess.run([*install, "protobuf>=7,<8"], check=True)
    stubs = [path for path in generate.generate() if path.suffix == ".py"]
    modules = [".".join(path.relative_to(generate.ROOT).with_suffix("").parts) for path in stubs]
    check = "import google.protobuf as p; assert p.__version__.startswith('7.'), p.__version__"
    code = "\n".join([check, *(f"import {module}" for module in modules)])
    path = os.pathsep.join([str(tmp_path), str(generate.ROOT)])
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
