"""The repository calls of the Open Inference service: index, load, unload.

A KServe client sends the model's name in field 1, which is `repository_name` in Triton's
messages; so a request that has only that field means the model of that name.
"""

from collections.abc import Mapping, Sequence

from protos.inference import grpc_service_pb2 as pb
from server.errors import InvalidRequest, Unimplemented
from server.model_versions import ModelState, VersionStatus
from server.overrides import Overrides
from server.registry import Registry
from server.rpc.call import Method
from server.rpc.open_inference_method import method

Parameters = Mapping[str, pb.ModelRepositoryParameter]

_FILE = "file:"


class RepositoryCalls:
    """Shows and changes what is loaded. Event loop only."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def methods(self) -> Sequence[Method]:
        return (
            method("RepositoryIndex", pb.RepositoryIndexRequest, self._index),
            method("RepositoryModelLoad", pb.RepositoryModelLoadRequest, self._load),
            method("RepositoryModelUnload", pb.RepositoryModelUnloadRequest, self._unload),
        )

    async def _index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        if request.repository_name:
            raise Unimplemented("'repository_name' specification is not supported")
        await self._registry.refresh()
        entries = self._registry.index()
        return pb.RepositoryIndexResponse(
            models=[
                _index_entry(entry)
                for entry in entries
                if not request.ready or entry.state is ModelState.READY
            ]
        )

    async def _load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        name = _model_name(request.repository_name, request.model_name)
        await self._registry.load(name, overrides_of(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def _unload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        """`unload_dependents` has no effect: no model here depends on another."""
        name = _model_name(request.repository_name, request.model_name)
        dependents = request.parameters.get("unload_dependents")
        if dependents is not None:
            _expect("unload", "unload_dependents", dependents, "bool_param")
        await self._registry.unload(name)
        return pb.RepositoryModelUnloadResponse()


def overrides_of(parameters: Parameters) -> Overrides:
    """What a load call brings along instead of the repository's own.

    Raises:
        InvalidRequest: an unknown parameter, or a value of the wrong type.
    """
    config: str | None = None
    files: dict[str, bytes] = {}
    for key, value in parameters.items():
        if key == "config":
            _expect("load", key, value, "string_param")
            config = value.string_param
        elif key.startswith(_FILE):
            _expect("load", key, value, "bytes_param")
            files[key.removeprefix(_FILE)] = value.bytes_param
        else:
            raise InvalidRequest(
                f"unrecognized load parameter '{key}', expected 'config' or 'file:<path>'"
            )
    return Overrides(config, files)


def _model_name(repository_name: str, model_name: str) -> str:
    if model_name and repository_name:
        raise Unimplemented("'repository_name' specification is not supported")
    if not (model_name or repository_name):
        raise InvalidRequest("the request names no model")
    return model_name or repository_name


def _expect(call: str, key: str, value: pb.ModelRepositoryParameter, expected: str) -> None:
    if value.WhichOneof("parameter_choice") != expected:
        raise InvalidRequest(
            f"invalid value type for {call} parameter '{key}', expected {expected}."
        )


def _index_entry(entry: VersionStatus) -> pb.RepositoryIndexResponse.ModelIndex:
    return pb.RepositoryIndexResponse.ModelIndex(
        name=entry.model,
        version="" if entry.version is None else str(entry.version),
        state=entry.state,
        reason=entry.reason,
    )
