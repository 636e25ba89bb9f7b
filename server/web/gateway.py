"""The HTTP front door: Open Inference REST, `/metrics`, and the pages that only read.

A REST call runs the handler of the gRPC call of the same meaning, so both front doors answer
alike; only the dress differs (`infer_json.py`, `open_inference_calls.py`). Errors are
`{"error": "..."}` with the status that google.rpc.Code publishes for the gRPC code.

JSON bodies are parsed on the event loop: megabytes of numbers belong in the binary extension.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from aiohttp import web

from protos.inference import grpc_service_pb2 as pb
from server.errors import HTTP_STATUS, InvalidRequest, ServeError
from server.metrics import Metrics
from server.rpc.call import Service, Unary, UnaryHandler, status_of
from server.web.infer_json import decode_infer, encode_infer, parse_json
from server.web.open_inference_calls import RestCall, rest_calls

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
_INFER_PATHS: Final = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
_COMPRESS_IN_THREAD: Final = 65536  # bytes of a response that are compressed off the event loop

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _HttpCall:
    """An HTTP request in the services' terms. REST has no deadline; a lost caller cancels."""

    __slots__ = ("_request",)

    deadline: float | None = None

    def __init__(self, request: web.Request) -> None:
        self._request = request

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return {name.lower(): value for name, value in self._request.headers.items()}

    @property
    def peer(self) -> str:
        return str(self._request.remote)


class Gateway:
    """Makes the HTTP application. Its handlers run on the event loop that serves it."""

    def __init__(self, open_inference: Service, metrics: Metrics, max_body_bytes: int) -> None:
        methods = [each for each in open_inference.methods() if isinstance(each, Unary)]
        self._handlers: dict[str, UnaryHandler] = {each.path: each.handler for each in methods}
        self._metrics, self._max_body_bytes = metrics, max_body_bytes

    def application(self, pages: Sequence[web.RouteDef] = ()) -> web.Application:
        """All routes; `pages` are further ones, which share the error form."""
        app = web.Application(
            middlewares=[self._errors], client_max_size=self._max_body_bytes or 2**63
        )
        routes = [web.get("/metrics", self._render_metrics)]
        routes += [web.post(path, self._infer) for path in _INFER_PATHS]
        routes += [web.route(call.verb, call.path, self._rest(call)) for call in rest_calls()]
        app.add_routes([*routes, *pages])
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every failure in one form."""
        try:
            return await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return self._too_large()
        except web.HTTPException as error:
            return _error(error.status, f"{error.reason}: {request.method} {request.path}")
        except Exception as error:
            status = status_of(error, request.path)
            response = _error(HTTP_STATUS[status.code], status.details)
            _add_retry_after(response, error)
            return response

    def _too_large(self) -> web.Response:
        return _error(
            413,
            f"the request body is larger than {self._max_body_bytes} bytes, the largest this"
            " server takes (--max-message-mb)",
        )

    async def _render_metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _rest(self, call: RestCall) -> Handler:
        handle = self._handlers[call.rpc_path]

        async def answer(request: web.Request) -> web.Response:
            body = parse_json(await self._body(request)) if call.verb == "POST" else {}
            data = await handle(_HttpCall(request), call.encode(request.match_info, body))
            value = call.decode(data)
            if isinstance(value, bool):
                return web.Response(status=200 if value else 400)
            return web.json_response(value)

        return answer

    async def _infer(self, request: web.Request) -> web.Response:
        variables = request.match_info
        message, wanted = decode_infer(
            await self._body(request),
            _header_length(request),
            variables["model"],
            variables.get("version", ""),
        )
        handle = self._handlers[_INFER]
        data = await handle(_HttpCall(request), message.SerializeToString())
        body, header_length = encode_infer(pb.ModelInferResponse.FromString(data), wanted)
        return _infer_response(body, header_length)

    async def _body(self, request: web.Request) -> bytes:
        """The body, decompressed. One that announces itself as too large is not read at all."""
        if self._max_body_bytes and (request.content_length or 0) > self._max_body_bytes:
            raise web.HTTPRequestEntityTooLarge(self._max_body_bytes, request.content_length or 0)
        return await request.read()


def _infer_response(body: bytes, header_length: int | None) -> web.Response:
    headers = {"Content-Type": "application/json"}
    if header_length is not None:
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(header_length)}
    response = web.Response(body=body, headers=headers, zlib_executor_size=_COMPRESS_IN_THREAD)
    response.enable_compression()  # as far as the client's Accept-Encoding asks for it
    return response


def _header_length(request: web.Request) -> int | None:
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidRequest(f"{HEADER_LENGTH}: expected a number of bytes, got '{text}'")
    return int(text)


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def _add_retry_after(response: web.Response, error: Exception) -> None:
    """HTTP counts whole seconds: the predicted wait, rounded up."""
    wait_s = error.retry_after_s if isinstance(error, ServeError) else None
    if wait_s is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
