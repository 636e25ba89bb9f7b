"""A real gRPC server that answers by script: what the clients' tests talk to."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

Unary = Callable[[bytes], bytes]
Streaming = Callable[[Iterator[bytes]], Iterator[bytes]]


class Failure(Exception):
    """Raised by a handler to end its call with this status."""

    def __init__(
        self, code: grpc.StatusCode, details: str = "", push_back: str | None = None
    ) -> None:
        super().__init__(details)
        self.code, self.details = code, details
        self.trailers = () if push_back is None else (("grpc-retry-pushback-ms", push_back),)


@dataclass
class ScriptedServer:
    """Answers calls by path, and keeps what the unary ones asked and how long they would wait."""

    unary: Mapping[str, Unary] = field(default_factory=dict)
    streaming: Mapping[str, Streaming] = field(default_factory=dict)
    requests: list[bytes] = field(default_factory=list)
    remaining_s: list[float | None] = field(default_factory=list)
    target: str = ""

    def handlers(self) -> Iterator[Any]:
        """One generic handler per method."""
        for path, handler in self.unary.items():
            yield _generic(path, grpc.unary_unary_rpc_method_handler(self._unary(handler)))
        for path, stream in self.streaming.items():
            yield _generic(path, grpc.stream_stream_rpc_method_handler(_streaming(stream)))

    def _unary(self, handler: Unary) -> Callable[[bytes, Any], bytes]:
        def handle(request: bytes, context: Any) -> bytes:
            self.requests.append(request)
            self.remaining_s.append(context.time_remaining())
            try:
                return handler(request)
            except Failure as failure:
                _end(context, failure)
                raise

        return handle


@contextmanager
def running(server: ScriptedServer) -> Iterator[ScriptedServer]:
    with ThreadPoolExecutor(4) as threads:
        grpc_server = grpc.server(threads)
        grpc_server.add_generic_rpc_handlers([*server.handlers()])
        server.target = f"127.0.0.1:{grpc_server.add_insecure_port('127.0.0.1:0')}"
        grpc_server.start()
        yield server
        grpc_server.stop(None).wait()


def _generic(path: str, handler: Any) -> Any:
    _, service, method = path.split("/")
    return grpc.method_handlers_generic_handler(service, {method: handler})


def _streaming(handler: Streaming) -> Callable[[Iterator[bytes], Any], Iterator[bytes]]:
    def handle(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        try:
            yield from handler(requests)
        except Failure as failure:
            _end(context, failure)

    return handle


def _end(context: Any, failure: Failure) -> None:
    context.set_trailing_metadata(failure.trailers)
    context.abort(failure.code, failure.details)
