"""gRPC server reflection, v1 and v1alpha: describes this server's services to grpcurl and the like.

Shows the files that define the services it is given and what those import, nothing else that
happens to be in the process's descriptor pools. The two versions differ in the package's name
only, so both are read and written with v1's messages.
"""

from collections.abc import AsyncIterator, Iterable, Sequence

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool

from protos.pool import POOL
from protos.reflection.v1 import reflection_pb2 as pb
from protos.reflection.v1alpha import reflection_pb2 as pb_v1alpha
from server.errors import Code
from server.rpc.call import Call, Method, Send, Stream
from server.rpc.messages import parse

SERVICES = (
    pb.DESCRIPTOR.services_by_name["ServerReflection"].full_name,
    pb_v1alpha.DESCRIPTOR.services_by_name["ServerReflection"].full_name,
)


class ReflectionService:
    """Answers from the descriptors of the given services. Stateless once made."""

    def __init__(self, services: Iterable[str]) -> None:
        """`services` are full names, "inference.GRPCInferenceService"; each must be known.

        Raises:
            KeyError: no imported stub defines a service of that name.
        """
        self._services = sorted({*services, *SERVICES})
        self._files: dict[str, FileDescriptor] = {}
        for service in self._services:
            _collect(_pool_of(service).FindFileContainingSymbol(service), self._files)
        self._pools = list({id(file.pool): file.pool for file in self._files.values()}.values())

    def methods(self) -> Sequence[Method]:
        return tuple(
            Stream(f"/{service}/ServerReflectionInfo", self.server_reflection_info)
            for service in SERVICES
        )

    async def server_reflection_info(
        self, _: Call, requests: AsyncIterator[bytes], send: Send
    ) -> None:
        async for data in requests:
            request = parse(pb.ServerReflectionRequest, data)
            await send(self.answer(request).SerializeToString())

    def answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        """The response to one request; what is unknown is an `error_response`."""
        response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        match request.WhichOneof("message_request"):
            case "list_services":
                services = response.list_services_response.service
                services.extend(pb.ServiceResponse(name=name) for name in self._services)
            case "file_by_filename":
                name = request.file_by_filename
                self._fill_files(response, self._files.get(name), f"file '{name}'")
            case "file_containing_symbol":
                name = request.file_containing_symbol
                self._fill_files(response, self._file_of(name), f"symbol '{name}'")
            case "file_containing_extension":
                asked = request.file_containing_extension
                what = f"extension {asked.extension_number} of '{asked.containing_type}'"
                self._fill_files(response, None, what)
            case "all_extension_numbers_of_type":
                self._fill_extensions(response, request.all_extension_numbers_of_type)
            case _:
                _fail(response, Code.INVALID_ARGUMENT, "the request asks for nothing")
        return response

    def _file_of(self, symbol: str) -> FileDescriptor | None:
        for pool in self._pools:
            file = _find_file(pool, symbol)
            if file is not None and self._files.get(file.name) is file:
                return file
        return None

    def _fill_files(
        self, response: pb.ServerReflectionResponse, file: FileDescriptor | None, asked: str
    ) -> None:
        """The file asked for comes first, then all it imports, so that no second call is needed."""
        if file is None:
            _fail(response, Code.NOT_FOUND, f"unknown {asked}")
            return
        files: dict[str, FileDescriptor] = {}
        _collect(file, files)
        response.file_descriptor_response.file_descriptor_proto.extend(
            each.serialized_pb for each in files.values()
        )

    def _fill_extensions(self, response: pb.ServerReflectionResponse, type_name: str) -> None:
        """None of our messages has extensions; an unknown type is an error all the same."""
        if self._file_of(type_name) is None:
            _fail(response, Code.NOT_FOUND, f"unknown type '{type_name}'")
            return
        response.all_extension_numbers_response.base_type_name = type_name


def _pool_of(service: str) -> DescriptorPool:
    """The private pool goes first: the default one may hold another package's `inference`."""
    for pool in (POOL, descriptor_pool.Default()):
        try:
            pool.FindServiceByName(service)
        except KeyError:
            continue
        return pool
    raise KeyError(f"no stub that is imported defines the service '{service}'")


def _find_file(pool: DescriptorPool, symbol: str) -> FileDescriptor | None:
    """The file of a message, enum, field, service, or (which the pool does not look for) method."""
    parent, _, name = symbol.rpartition(".")
    try:
        return pool.FindFileContainingSymbol(symbol)
    except KeyError:
        pass
    try:
        service = pool.FindServiceByName(parent)
    except KeyError:
        return None
    return service.file if name in service.methods_by_name else None


def _collect(file: FileDescriptor, files: dict[str, FileDescriptor]) -> None:
    """Adds a file and, behind it, all it imports, each once."""
    if file.name in files:
        return
    files[file.name] = file
    for imported in file.dependencies:
        _collect(imported, files)


def _fail(response: pb.ServerReflectionResponse, code: Code, text: str) -> None:
    response.error_response.error_code = code
    response.error_response.error_message = text
