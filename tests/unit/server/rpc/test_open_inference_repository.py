"""The repository calls over a registry with fake versions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protos.inference import grpc_service_pb2 as pb
from server.errors import InvalidRequest, ModelNotReady, ServeError, Unimplemented
from server.registry import Registry
from server.repository import Repository
from server.rpc.open_inference_repository import RepositoryCalls, overrides_of
from tests.fakes import FakeOpener
from tests.unit.server.rpc.fakes import FakeCall, unary

PATH = "/inference.GRPCInferenceService/"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    for name, content in (("a", "good"), ("b", "good"), ("bad", "corrupt")):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.onnx").write_text(content)
    return Registry(Repository([tmp_path]), FakeOpener(), "explicit")


async def call(registry: Registry, method: str, request: Any, response: Any) -> Any:
    handler = unary(RepositoryCalls(registry).methods(), PATH + method)
    return response.FromString(await handler(FakeCall(), request.SerializeToString()))


async def load(registry: Registry, **fields: Any) -> None:
    request = pb.RepositoryModelLoadRequest(**fields)
    await call(registry, "RepositoryModelLoad", request, pb.RepositoryModelLoadResponse)


async def unload(registry: Registry, **fields: Any) -> None:
    request = pb.RepositoryModelUnloadRequest(**fields)
    await call(registry, "RepositoryModelUnload", request, pb.RepositoryModelUnloadResponse)


async def index(registry: Registry, *, ready: bool = False) -> list[tuple[str, str, str]]:
    request = pb.RepositoryIndexRequest(ready=ready)
    response = await call(registry, "RepositoryIndex", request, pb.RepositoryIndexResponse)
    return [(model.name, model.version, model.state) for model in response.models]


async def test_the_index_shows_states_and_may_be_limited_to_what_is_ready(
    registry: Registry,
) -> None:
    await registry.start()
    await load(registry, model_name="a")
    with pytest.raises(ServeError):
        await load(registry, model_name="bad")
    assert await index(registry) == [
        ("a", "1", "READY"),
        ("b", "", "UNAVAILABLE"),
        ("bad", "1", "UNAVAILABLE"),
    ]
    assert await index(registry, ready=True) == [("a", "1", "READY")]
    await registry.close()


async def test_load_and_unload(registry: Registry) -> None:
    await registry.start()
    await load(registry, model_name="a")
    assert registry.is_ready("a")
    parameter = pb.ModelRepositoryParameter(bool_param=True)
    await unload(registry, model_name="a", parameters={"unload_dependents": parameter})
    assert not registry.is_ready("a")
    await unload(registry, model_name="nobody")
    await registry.close()


async def test_a_name_in_kserves_place_is_understood(registry: Registry) -> None:
    await registry.start()
    await load(registry, repository_name="a")
    assert registry.is_ready("a")
    await unload(registry, repository_name="a")
    assert not registry.is_ready("a")
    await registry.close()


@pytest.mark.parametrize(
    ("ask", "kind", "text"),
    [
        (load, InvalidRequest, "names no model"),
        (
            lambda r: load(r, repository_name="repo", model_name="a"),
            Unimplemented,
            "'repository_name' specification is not supported",
        ),
        (
            lambda r: unload(
                r,
                model_name="a",
                parameters={"unload_dependents": pb.ModelRepositoryParameter(int64_param=1)},
            ),
            InvalidRequest,
            "invalid value type for unload parameter 'unload_dependents', expected bool_param.",
        ),
    ],
    ids=["no name", "a repository", "not a flag"],
)
async def test_refusals(
    registry: Registry, ask: Callable[[Registry], Any], kind: type[ServeError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        await ask(registry)


async def test_an_index_of_one_repository_is_refused(registry: Registry) -> None:
    request = pb.RepositoryIndexRequest(repository_name="repo")
    with pytest.raises(Unimplemented, match="'repository_name' specification is not supported"):
        await call(registry, "RepositoryIndex", request, pb.RepositoryIndexResponse)


async def test_loading_is_refused_where_control_is_not_explicit(tmp_path: Path) -> None:
    registry = Registry(Repository([tmp_path]), FakeOpener(), "all")
    with pytest.raises(ModelNotReady, match="explicit model load / unload is not allowed"):
        await load(registry, model_name="a")


def test_overrides_are_the_configuration_and_files() -> None:
    overrides = overrides_of(
        {
            "config": pb.ModelRepositoryParameter(string_param="{}"),
            "file:1/model.onnx": pb.ModelRepositoryParameter(bytes_param=b"content"),
        }
    )
    assert (overrides.config, overrides.files) == ("{}", {"1/model.onnx": b"content"})


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "config",
            pb.ModelRepositoryParameter(bytes_param=b"{}"),
            "invalid value type for load parameter 'config', expected string_param.",
        ),
        (
            "file:1/model.onnx",
            pb.ModelRepositoryParameter(string_param="x"),
            "invalid value type for load parameter 'file:1/model.onnx', expected bytes_param.",
        ),
        ("colour", pb.ModelRepositoryParameter(int64_param=1), "unrecognized load parameter"),
    ],
)
def test_refused_overrides(key: str, value: pb.ModelRepositoryParameter, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        overrides_of({key: value})
