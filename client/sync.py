"""The blocking client. It differs from `aio.py` in how it waits; all else is shared."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from google.protobuf.message import Message
from numpy.typing import ArrayLike

from client import control, methods
from client.codec import StreamSource, decode_response, encode_request
from client.errors import InferenceError
from client.methods import Method
from client.retry import Attempts, RetryPolicy
from client.values import Options, Prediction, Request
from protos import models_pb2, optimization_pb2
from protos.tensors import Array

RequestT = TypeVar("RequestT", bound=Message | bytes)
ResponseT = TypeVar("ResponseT", bound=Message)


class Client:
    """Asks an Inflight server for predictions, and controls its models.

        with Client("localhost:8001") as client:
            y = client.predict("digits", {"x": images})["probabilities"]

    Every call either returns or raises `InferenceError`. Predictions and questions are retried as
    `retry` says (its defaults suit most), after exactly the wait the server asks for where it asks
    for one, and never past the deadline; calls that change something are made once.

    Threads may share one client: it keeps nothing but its connection. `close` it, or use `with`.
    It does not survive `os.fork` (a limit of gRPC): make it in the child.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:8001",
        *,
        timeout_s: float | None = None,
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connects when first used.

        Args:
            target: "host:port" of the server's gRPC listener.
            timeout_s: for every call that names none, retries included; None: unlimited.
            retry: when failed calls are tried again; None: `RetryPolicy()`.
            credentials: for TLS; None: plain text.
            sleep: waits between attempts.
        """
        options = methods.CHANNEL_OPTIONS
        self._channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self._timeout_s, self._retry, self._sleep = timeout_s, retry or RetryPolicy(), sleep
        self._predict = self._open(methods.PREDICT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls under way fail with CANCELLED."""
        self._channel.close()

    # -- predictions

    def predict(
        self, model: str, inputs: Mapping[str, ArrayLike], **options: Unpack[Options]
    ) -> dict[str, Array]:
        """The model's outputs by name, as read-only arrays.

        Args:
            model: the model's name.
            inputs: array by input name. Nothing is converted: a float64 array is FP64 and a model
                that wants FP32 refuses it with a message that says so.
            **options: the fields of `Request` of that name: version, outputs, priority,
                request_id, timeout_s, queue_timeout_s.

        Raises:
            InferenceError: the server refused or could not be reached.
            ValueError: an input that cannot be sent.
        """
        return self.infer(model, inputs, **options).outputs

    def infer(
        self, model: str, inputs: Mapping[str, ArrayLike], **options: Unpack[Options]
    ) -> Prediction:
        """As `predict`, with all that came back: version, artifact, and timing with `explain`."""
        request = Request(model, inputs, **options)
        message = encode_request(request)
        return decode_response(self._attempt(self._predict, message, request.timeout_s))

    def stream(
        self, requests: Iterable[Request], *, timeout_s: float | None = None
    ) -> Generator[Prediction, None, None]:
        """Answers to many requests over one stream, many in flight, as they become ready.

        Answers may overtake each other: match them by `request_id`. A request that fails is an
        answer with `error` set (`result()` raises it), and the others go on; nothing is retried.
        `requests` is read on another thread, as fast as the server takes it. Leaving the loop
        cancels what is in flight.

        Args:
            requests: what to ask; those without a request_id are numbered "0", "1", ...
            timeout_s: for the whole stream; None: unlimited. `Request.timeout_s` is for each.

        Raises:
            InferenceError: the stream itself broke.
            ValueError: a request that cannot be sent; those before it are answered first.
        """
        source = StreamSource()
        method = methods.PREDICT_STREAM
        start = self._channel.stream_stream(method.path, **method.codecs)
        call = start(source.messages(requests), timeout=timeout_s)
        try:
            for response in _responses(call):
                yield decode_response(response)
        finally:
            call.cancel()
        if source.failure is not None:
            raise source.failure

    # -- models

    def models(self, *, window_s: int = 60) -> list[models_pb2.ModelSummary]:
        """Every version of every model, its state, and its latency over `window_s` seconds."""
        request = models_pb2.ListModelsRequest(window_s=window_s)
        return list(self._ask(methods.LIST_MODELS, request).models)

    def model(self, model: str, *, version: int | None = None) -> models_pb2.GetModelResponse:
        """All that is known about one model: see `protos/models.proto`, `ModelVersion`."""
        request = models_pb2.GetModelRequest(model=model, version=version or 0)
        return self._ask(methods.GET_MODEL, request)

    def load(
        self,
        model: str,
        *,
        config: str | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: float | None = None,
    ) -> list[models_pb2.ModelSummary]:
        """Loads or reloads a model; returns its versions once they serve.

        Args:
            model: a folder of the server's repository; with `files`, any name.
            config: the fields of config.pbtxt as JSON, to use instead of the folder's own file.
            files: contents by "<version>/<file>" to use instead of the folder's; needs `config`.
            timeout_s: longest wait; the load itself goes on.

        Raises:
            InferenceError: the load failed; what served before goes on serving.
        """
        request = control.load_request(model, config, files)
        return list(self._ask(methods.LOAD_MODEL, request, timeout_s).versions)

    def unload(self, model: str, *, timeout_s: float | None = None) -> None:
        """Stops serving a model; returns when it refuses new requests."""
        request = models_pb2.UnloadModelRequest(model=model)
        self._ask(methods.UNLOAD_MODEL, request, timeout_s)

    def latency(
        self, model: str = "", *, version: int | None = None, window_s: int = 10
    ) -> list[models_pb2.ModelLatency]:
        """Latency per stage of a model's ready versions; of all models where none is named.

        `window_s` is how far to look back: 1, 10, 60 or 300 seconds.
        """
        request = models_pb2.GetLatencyRequest(model=model, version=version or 0, window_s=window_s)
        return list(self._ask(methods.GET_LATENCY, request).models)

    def watch_latency(
        self,
        model: str = "",
        *,
        version: int | None = None,
        window_s: int = 10,
        interval_s: float = 1.0,
    ) -> Generator[list[models_pb2.ModelLatency], None, None]:
        """As `latency`, now and every `interval_s` seconds, until the loop is left."""
        request = control.watch_request(model, version, window_s, interval_s)
        method = methods.WATCH_LATENCY
        call = self._channel.unary_stream(method.path, **method.codecs)(request)
        try:
            for response in _responses(call):
                yield list(response.models)
        finally:
            call.cancel()

    def batching(self, model: str, *, version: int | None = None) -> models_pb2.GetBatchingResponse:
        """The batching settings in force, and whether the model batches at all."""
        request = models_pb2.GetBatchingRequest(model=model, version=version or 0)
        return self._ask(methods.GET_BATCHING, request)

    def set_batching(
        self,
        model: str,
        *,
        version: int | None = None,
        **change: Unpack[control.BatchingChange],
    ) -> models_pb2.SetBatchingResponse:
        """Changes the settings named, from the next batch on; returns the new and the old ones.

            client.set_batching("digits", window_ms=2.0, max_batch=16)

        Raises:
            InferenceError: INVALID_ARGUMENT names the setting, its value and what was expected.
        """
        request = control.set_batching_request(model, version, change)
        return self._ask(methods.SET_BATCHING, request)

    # -- optimization

    def optimize(
        self,
        model: str,
        *,
        version: int | None = None,
        **options: Unpack[control.OptimizeOptions],
    ) -> optimization_pb2.OptimizationJob:
        """Queues a job that makes a model faster while it serves; returns the job at once.

            job = client.optimize("digits", techniques=["quantization"], data_file="x.npz")

        Raises:
            InferenceError: INVALID_ARGUMENT names the option, its value and what was expected.
        """
        request = control.optimize_request(model, version, options)
        return self._ask(methods.OPTIMIZE, request).job

    def optimization(self, job_id: str) -> optimization_pb2.OptimizationJob:
        """A job with its candidates, its log and, at its end, its report as JSON."""
        request = optimization_pb2.GetOptimizationRequest(id=job_id)
        return self._ask(methods.GET_OPTIMIZATION, request).job

    def optimizations(
        self, model: str = "", *, limit: int = 100
    ) -> list[optimization_pb2.OptimizationJob]:
        """The jobs the server remembers, the latest first; of one model where one is named."""
        request = optimization_pb2.ListOptimizationsRequest(model=model, limit=limit)
        return list(self._ask(methods.LIST_OPTIMIZATIONS, request).jobs)

    def watch_optimization(
        self, job_id: str
    ) -> Generator[optimization_pb2.OptimizationJob, None, None]:
        """A job now and whenever it has changed, until it has ended or the loop is left."""
        request = optimization_pb2.WatchOptimizationRequest(id=job_id)
        method = methods.WATCH_OPTIMIZATION
        call = self._channel.unary_stream(method.path, **method.codecs)(request)
        try:
            for response in _responses(call):
                yield response.job
        finally:
            call.cancel()

    def cancel_optimization(self, job_id: str) -> optimization_pb2.OptimizationJob:
        """Ends a job that waits or runs."""
        request = optimization_pb2.CancelOptimizationRequest(id=job_id)
        return self._ask(methods.CANCEL_OPTIMIZATION, request).job

    def promote(
        self, model: str, *, version: int | None = None, job_id: str = ""
    ) -> optimization_pb2.ServedForm:
        """Lets the artifact of a job (of the latest one) serve in place of the model's file."""
        request = optimization_pb2.PromoteRequest(model=model, version=version or 0, id=job_id)
        return self._ask(methods.PROMOTE, request).served

    def roll_back(self, model: str, *, version: int | None = None) -> optimization_pb2.ServedForm:
        """Lets the model's own file serve again; returns when it does."""
        request = optimization_pb2.RollBackRequest(model=model, version=version or 0)
        return self._ask(methods.ROLL_BACK, request).served

    # -- calls

    def _open(self, method: Method[RequestT, ResponseT]) -> Any:
        return self._channel.unary_unary(method.path, **method.codecs)

    def _ask(
        self,
        method: Method[RequestT, ResponseT],
        request: RequestT,
        timeout_s: float | None = None,
    ) -> ResponseT:
        policy = self._retry if method.retry else RetryPolicy(max_attempts=1)
        response: ResponseT = self._attempt(self._open(method), request, timeout_s, policy)
        return response

    def _attempt(
        self,
        call: Any,
        request: Message | bytes,
        timeout_s: float | None,
        policy: RetryPolicy | None = None,
    ) -> Any:
        """Calls until it succeeds or may not be tried again."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        attempts = Attempts(policy or self._retry, timeout_s)
        while True:
            try:
                return call(request, timeout=attempts.remaining_s)
            except grpc.RpcError as error:
                failure = InferenceError.of_call(error)
            delay = attempts.delay_after(failure)
            if delay is None:
                raise failure
            self._sleep(delay)


def _responses(call: Any) -> Iterator[Any]:
    try:
        yield from call
    except grpc.RpcError as error:
        raise InferenceError.of_call(error) from None
