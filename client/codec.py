"""Values of the client as messages and back; used by the sync and the async client alike."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import count

import numpy as np
from numpy.typing import ArrayLike

from client.errors import InferenceError
from client.values import Prediction, Request, Timing
from protos import predict_pb2 as pb
from protos.tensor_wire import serialize
from protos.tensors import Array, datatype_of, decode


def encode_request(request: Request, number: int | None = None) -> bytes:
    """The serialized message of a request; `number` is its id where it has none.

    Raises:
        ValueError: names the input that cannot be sent and its dtype, the timeout that is not
            positive, or the negative number.
    """
    message = pb.PredictRequest(
        model=request.model,
        version=_whole("version", request.version),
        request_id=request.request_id or ("" if number is None else str(number)),
        output_names=request.outputs,
        priority=_whole("priority", request.priority),
        explain=request.explain,
        timeout_ms=_milliseconds("timeout_s", request.timeout_s),
        queue_timeout_ms=_milliseconds("queue_timeout_s", request.queue_timeout_s),
    )
    arrays = {name: _array(name, value) for name, value in request.inputs.items()}
    return serialize(message, message.inputs, arrays)


def decode_response(message: pb.PredictResponse) -> Prediction:
    """The answer a message holds; its arrays are read-only views on the message's bytes."""
    return Prediction(
        model=message.model,
        version=message.version,
        request_id=message.request_id,
        outputs={t.name: decode(t.raw, t.datatype, tuple(t.shape)) for t in message.outputs},
        served_by=message.served_by,
        timing=_timing(message.timing) if message.HasField("timing") else None,
        error=_error(message.status) if message.HasField("status") else None,
    )


class StreamSource:
    """Turns the requests of one stream into messages, and keeps what stopped that.

    A request that names no id gets a number of its own ("0", "1", ...). gRPC reads this on a
    thread or task where an exception would be lost: the source ends instead, and the caller raises
    `failure` once what was sent before is answered.
    """

    def __init__(self) -> None:
        self._numbers = count()
        self.failure: Exception | None = None

    def encode(self, request: Request) -> bytes:
        return encode_request(request, next(self._numbers))

    def messages(self, requests: Iterable[Request]) -> Iterator[bytes]:
        try:
            for request in requests:
                yield self.encode(request)
        except Exception as error:
            self.failure = error

    async def messages_async(
        self, requests: Iterable[Request] | AsyncIterable[Request]
    ) -> AsyncIterator[bytes]:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    yield self.encode(request)
            else:
                for request in requests:
                    yield self.encode(request)
        except Exception as error:
            self.failure = error


def _array(name: str, value: ArrayLike) -> Array:
    try:
        array = np.asarray(value)
        datatype_of(array)
    except ValueError as error:
        raise ValueError(f'input "{name}": {error}') from None
    return array


def _whole(field: str, value: int | None) -> int:
    if value is not None and value < 0:
        raise ValueError(f"{field}: expected a whole number, 0 or more, got {value}")
    return value or 0


def _milliseconds(field: str, seconds: float | None) -> float:
    if seconds is None:
        return 0.0
    if not seconds > 0:
        raise ValueError(f"{field}: expected a positive number of seconds, got {seconds}")
    return seconds * 1e3


def _error(status: pb.Status) -> InferenceError:
    wait = status.retry_after_ms / 1e3 if status.HasField("retry_after_ms") else None
    return InferenceError.of_status(status.code, status.message, wait)


def _timing(timing: pb.Timing) -> Timing:
    return Timing(
        total_s=timing.total_ns / 1e9,
        queue_s=timing.queue_ns / 1e9,
        compute_s=timing.compute_ns / 1e9,
        compute_input_s=timing.compute_input_ns / 1e9,
        compute_infer_s=timing.compute_infer_ns / 1e9,
        compute_output_s=timing.compute_output_ns / 1e9,
        batch_size=timing.batch_size,
        batch_requests=timing.batch_requests,
        batch_position=timing.batch_position,
        padding_ratio=timing.padding_ratio,
        release_reason=timing.release_reason,
    )
