"""`inflight.v1.Prediction`: bytes in, `InferRequest`, `Inference.predict`, bytes out.

Only the codec and the stream's bookkeeping live here; what a request means (names, shapes,
priorities) is checked by `Inference`.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

from protos import predict_pb2 as pb
from protos.tensor_wire import serialize
from protos.tensors import Array, decode
from server.errors import InvalidRequest, ModelNotReady
from server.inference import Inference
from server.request import InferRequest, InferResponse, Timing
from server.rpc.call import Call, Method, Send, StatusError, Stream, Unary, status_of
from server.rpc.messages import parse

STREAM_IN_FLIGHT = 256
"""Unanswered requests one stream may have; the contract states it (protos/predict.proto)."""

_STREAM_PATH = "/inflight.v1.Prediction/PredictStream"


class PredictionService:
    """The native prediction service. Belongs to the event loop."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._readers: set[asyncio.Task[None]] = set()  # one per open stream

    def methods(self) -> Sequence[Method]:
        return (
            Unary("/inflight.v1.Prediction/Predict", self.predict),
            Stream(_STREAM_PATH, self.predict_stream),
        )

    def drain(self) -> None:
        """Reads no further from open streams: each ends when its requests are answered."""
        for reader in self._readers:
            reader.cancel()

    async def predict(self, call: Call, data: bytes) -> bytes:
        request = decode_request(parse(pb.PredictRequest, data), call.deadline)
        response = await self._inference.predict(request)
        return encode_response(response, request.explain)

    async def predict_stream(self, call: Call, requests: AsyncIterator[bytes], send: Send) -> None:
        """Answers each request in a task of its own, so that none waits for another."""
        turn = asyncio.Lock()  # a transport sends one message of a stream at a time

        async def answer(data: bytes) -> None:
            response = await self._answer(call, data)
            async with turn:
                await send(response)

        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(_read(requests, answer, tasks))
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        if reader.cancelled():
            raise ModelNotReady("the server is shutting down")

    async def _answer(self, call: Call, data: bytes) -> bytes:
        """One response of a stream; every failure becomes its status."""
        message = pb.PredictRequest()
        try:
            message = parse(pb.PredictRequest, data)
            request = decode_request(message, call.deadline)
            response = await self._inference.predict(request)
            return encode_response(response, request.explain)
        except Exception as error:
            return encode_failure(message, error)


async def _read(
    requests: AsyncIterator[bytes],
    answer: Callable[[bytes], Coroutine[None, None, None]],
    tasks: asyncio.TaskGroup,
) -> None:
    """Starts a task per request, and stops reading while too many are under way."""
    room = asyncio.Semaphore(STREAM_IN_FLIGHT)
    async for data in requests:
        await room.acquire()
        tasks.create_task(answer(data)).add_done_callback(lambda _: room.release())


def decode_request(message: pb.PredictRequest, call_deadline: float | None) -> InferRequest:
    """The request a message asks for; inputs are views on the message's bytes.

    Raises:
        InvalidRequest: names what cannot be understood, its value, and what was expected.
    """
    if not message.model:
        raise InvalidRequest("the request names no model")
    version = message.version
    if version < 0:
        raise InvalidRequest(f"version: expected a positive number or 0 for any, got {version}")
    return InferRequest(
        model=message.model,
        inputs=_decode_inputs(message),
        version=version or None,
        output_names=tuple(message.output_names),
        request_id=message.request_id,
        priority=message.priority,
        deadline=_deadline(message.timeout_ms, call_deadline),
        queue_timeout_s=_seconds("queue_timeout_ms", message.queue_timeout_ms) or None,
        explain=message.explain,
    )


def encode_response(response: InferResponse, explain: bool) -> bytes:
    """The message of an answer."""
    message = pb.PredictResponse(
        model=response.model,
        version=response.version,
        request_id=response.request_id,
        served_by=response.served_by,
    )
    if explain:
        _fill_timing(message.timing, response.timing)
    return serialize(message, message.outputs, response.outputs)


def encode_failure(message: pb.PredictRequest, error: Exception) -> bytes:
    """The message of a failed request of a stream: its status, nothing else."""
    status = status_of(error, _STREAM_PATH)
    failed = pb.Status(code=status.code, message=status.details)
    wait_ms = _push_back_ms(status)
    if wait_ms is not None:
        failed.retry_after_ms = wait_ms
    return pb.PredictResponse(
        model=message.model, request_id=message.request_id, status=failed
    ).SerializeToString()


def _decode_inputs(message: pb.PredictRequest) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    for tensor in message.inputs:
        name = tensor.name
        if name in inputs:
            raise InvalidRequest(f'input "{name}" is given twice')
        try:
            inputs[name] = decode(tensor.raw, tensor.datatype, tuple(tensor.shape))
        except ValueError as error:
            raise _bad_tensor(tensor, error) from None
    return inputs


def _bad_tensor(tensor: pb.Tensor, error: ValueError) -> InvalidRequest:
    hint = "" if tensor.shape else " (the request gives no shape; a scalar has one element)"
    return InvalidRequest(f'input "{tensor.name}": {error}{hint}')


def _deadline(timeout_ms: float, call_deadline: float | None) -> float | None:
    """The nearer of the call's deadline and the request's own."""
    if not timeout_ms:
        return call_deadline
    own = time.monotonic() + _seconds("timeout_ms", timeout_ms)
    return own if call_deadline is None else min(own, call_deadline)


def _seconds(field: str, milliseconds: float) -> float:
    if not 0 <= milliseconds < math.inf:  # also refuses NaN
        raise InvalidRequest(f"{field}: expected a positive number or 0, got {milliseconds}")
    return milliseconds / 1e3


def _fill_timing(message: pb.Timing, timing: Timing) -> None:
    message.total_ns = _nanoseconds(timing.total_s)
    message.queue_ns = _nanoseconds(timing.queue_s)
    message.compute_ns = _nanoseconds(timing.compute_s)
    message.compute_input_ns = _nanoseconds(timing.compute_input_s)
    message.compute_infer_ns = _nanoseconds(timing.compute_infer_s)
    message.compute_output_ns = _nanoseconds(timing.compute_output_s)
    message.batch_size = timing.batch_rows
    message.batch_requests = timing.batch_requests
    message.batch_position = timing.batch_position
    message.padding_ratio = timing.padding_ratio
    message.release_reason = timing.release_reason


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def _push_back_ms(status: StatusError) -> int | None:
    for key, value in status.trailers:
        if key == "grpc-retry-pushback-ms":
            return int(value)
    return None
