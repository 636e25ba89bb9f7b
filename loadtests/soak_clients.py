"""The clients of the soak: what they ask, what they do to their calls, and what they accept.

Every client has a connection of its own and asks one thing after the other: mostly good
requests, some that are cancelled or given a short deadline, some that are wrong. Each outcome is
held against what that request may end in; anything else is a finding.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import grpc
import grpc.aio
import numpy as np
import onnxruntime as ort

from client import InferenceError, Request
from client.codec import decode_response, encode_request
from client.methods import CHANNEL_OPTIONS, PREDICT
from protos import predict_pb2
from protos.tensors import Array

Status = grpc.StatusCode
PATIENCE_S = 60.0  # a request without an answer by then is lost
_EXAMPLES = 48  # per model variant


class Deed(StrEnum):
    """What a client does in one turn."""

    ASK = "ask"  # a good request, waited for
    CANCEL = "cancel"  # a good request, left after a while
    HURRY = "hurry"  # a good request with a deadline that may be too short
    ERR = "err"  # a request that is wrong


DEEDS = (Deed.ASK, Deed.CANCEL, Deed.HURRY, Deed.ERR)
WEIGHTS = (80, 7, 7, 6)


@dataclass(frozen=True, slots=True)
class Example:
    """A good request and its right answer, by the variant of the weights that answers it."""

    model: str
    inputs: Mapping[str, Array]
    output: str
    answers: Sequence[Array]  # [variant]; version v has variant v % len(answers)


@dataclass(slots=True)
class Tally:
    """What happened to all clients together. Only `findings` are bad."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    is_stopping: bool = False  # the server was told to stop: refusals are right from now on

    @property
    def turns(self) -> int:
        return self.outcomes.total() + self.findings.total()

    def expect(self, deed: Deed, outcome: str, is_right: bool) -> None:
        (self.outcomes if is_right else self.findings)[f"{deed}: {outcome}"] += 1


def examples(models: Mapping[str, Sequence[bytes]]) -> list[Example]:
    """Seeded requests for `tiny`, `mlp` and `embedding`, answered by bare ONNX Runtime."""
    random_state = np.random.default_rng(0)
    makers: dict[str, Callable[[], Mapping[str, Array]]] = {
        "tiny": lambda: {"x": _floats(random_state, 16)},
        "mlp": lambda: {"x": _floats(random_state, 256)},
        "embedding": lambda: {"ids": random_state.integers(0, 1000, _shape(random_state))},
    }
    found = []
    for model, variants in models.items():
        sessions = [ort.InferenceSession(v, providers=["CPUExecutionProvider"]) for v in variants]
        for _ in range(_EXAMPLES):
            inputs = makers[model]()
            answers = [session.run(None, inputs)[0] for session in sessions]
            found.append(Example(model, inputs, sessions[0].get_outputs()[0].name, answers))
    return found


def _floats(random_state: np.random.Generator, width: int) -> Array:
    return random_state.random((int(random_state.integers(1, 5)), width), np.float32)


def _shape(random_state: np.random.Generator) -> tuple[int, int]:
    rows, length = random_state.integers(1, 4), random_state.integers(1, 9)
    return int(rows), int(length)


WRONG: tuple[tuple[Request, frozenset[grpc.StatusCode]], ...] = (
    (Request("nobody", {"x": np.zeros((1, 16), np.float32)}), frozenset({Status.NOT_FOUND})),
    (Request("tiny", {"z": np.zeros((1, 16), np.float32)}), frozenset({Status.INVALID_ARGUMENT})),
    (Request("tiny", {"x": np.zeros((1, 15), np.float32)}), frozenset({Status.INVALID_ARGUMENT})),
    (Request("tiny", {"x": np.zeros((1, 16), np.int32)}), frozenset({Status.INVALID_ARGUMENT})),
    (Request("mlp", {}), frozenset({Status.INVALID_ARGUMENT})),
    (
        Request("embedding", {"ids": np.array([[1, 5_000]])}),
        frozenset({Status.INTERNAL, Status.INVALID_ARGUMENT}),
    ),
)


class SoakClient:
    """One client with one connection."""

    def __init__(self, address: str, seed: int, given: Sequence[Example], tally: Tally) -> None:
        own = (("grpc.use_local_subchannel_pool", 1),)
        self._channel = grpc.aio.insecure_channel(address, (*CHANNEL_OPTIONS, *own))
        self._predict = self._channel.unary_unary(PREDICT.path, **PREDICT.codecs)
        self._random = random.Random(seed)
        self._examples, self._tally = given, tally

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Turn after turn until it is over or the server has stopped."""
        try:
            while not is_over():
                deed = self._random.choices(DEEDS, WEIGHTS)[0]
                if not await self._turn(deed):
                    return
        finally:
            await self._channel.close()

    async def _turn(self, deed: Deed) -> bool:
        """One deed; False when the server refuses because it stops."""
        if deed is Deed.ERR:
            request, codes = self._random.choice(WRONG)
            return await self._ask(deed, request, None, codes)
        example = self._random.choice(self._examples)
        request = Request(example.model, example.inputs)
        if deed is Deed.CANCEL:
            return await self._leave(request, example)
        if deed is Deed.HURRY:
            timeout_s = self._random.uniform(0.001, 1.0)
            return await self._ask(
                deed, request, example, frozenset({Status.DEADLINE_EXCEEDED}), timeout_s
            )
        return await self._ask(deed, request, example, frozenset())

    async def _ask(
        self,
        deed: Deed,
        request: Request,
        example: Example | None,
        codes: frozenset[grpc.StatusCode],
        timeout_s: float = PATIENCE_S,
    ) -> bool:
        """Waits for the outcome: the right answer to the example, or one of `codes`."""
        try:
            message = await self._predict(encode_request(request), timeout=timeout_s)
        except grpc.aio.AioRpcError as raised:
            return await self._refused(deed, InferenceError.of_call(raised), codes)
        self._answered(deed, message, example)
        return True

    async def _leave(self, request: Request, example: Example) -> bool:
        """Cancels the call after a while, unless the answer comes before."""
        call = self._predict(encode_request(request), timeout=PATIENCE_S)
        await asyncio.sleep(self._random.uniform(0, 0.5))
        call.cancel()
        try:
            self._answered(Deed.CANCEL, await call, example)
        except asyncio.CancelledError:
            self._tally.expect(Deed.CANCEL, "cancelled", is_right=True)
        except grpc.aio.AioRpcError as raised:
            error = InferenceError.of_call(raised)
            return await self._refused(Deed.CANCEL, error, frozenset({Status.CANCELLED}))
        return True

    def _answered(
        self, deed: Deed, message: predict_pb2.PredictResponse, example: Example | None
    ) -> None:
        if example is None:
            self._tally.expect(deed, "answered a wrong request", is_right=False)
            return
        prediction = decode_response(message)
        right = example.answers[prediction.version % len(example.answers)]
        actual = prediction.outputs[example.output]
        is_right = actual.shape == right.shape and np.allclose(actual, right, 1e-4, 1e-5)
        self._tally.expect(deed, "right" if is_right else "WRONG ANSWER", is_right)

    async def _refused(
        self, deed: Deed, error: InferenceError, codes: frozenset[grpc.StatusCode]
    ) -> bool:
        if error.code in codes:
            self._tally.expect(deed, error.code.name, is_right=True)
            return True
        if error.code is Status.RESOURCE_EXHAUSTED and error.retry_after_s is not None:
            self._tally.expect(deed, "pushed back", is_right=True)
            await asyncio.sleep(error.retry_after_s)
            return True
        if self._tally.is_stopping and is_refusal(error):
            self._tally.expect(deed, "refused: stopping", is_right=True)
            return False
        self._tally.expect(deed, f"LOST: {error}"[:200], is_right=False)
        return True


def is_refusal(error: InferenceError) -> bool:
    """Not accepted, as opposed to accepted and dropped with the connection."""
    dropped = ("Socket closed", "reset", "recvmsg", "EOF")
    return error.code is Status.UNAVAILABLE and not any(word in error.message for word in dropped)
