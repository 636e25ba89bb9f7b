"""One poisoned request among its neighbours: the other 15 of 16 must be answered, every time.

Sixteen clients ask an embedding at the same moment, one of them for a row that does not exist.
A batch window makes all of them one batch, so the bad one fails the batch it runs in; the server
must find it and answer the rest.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from client import AsyncClient, InferenceError, RetryPolicy
from loadtests.models import embedding, write_repository
from loadtests.server_process import serving
from protos.tensors import Array

CALLERS = 16
_OUT_OF_RANGE = 5_000
_WINDOW_MS = 500.0


@dataclass(slots=True)
class Report:
    """What became of all requests of all rounds."""

    rounds: int = 0
    good_answered: int = 0
    good_failed: int = 0
    good_wrong: int = 0
    poisoned_answered: int = 0  # must stay 0: nothing can be right about that answer
    largest_batch: int = 0  # rows that the server says left together

    @property
    def passed(self) -> bool:
        bad = self.good_failed + self.good_wrong + self.poisoned_answered
        return not bad and self.good_answered == self.rounds * (CALLERS - 1)


async def poison(address: str, rounds: int) -> Report:
    """Runs the rounds against a server of the `embedding` model."""
    report = Report(rounds=rounds)
    session = ort.InferenceSession(embedding(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    async with AsyncClient(address, timeout_s=60, retry=RetryPolicy(max_attempts=1)) as client:
        await client.set_batching("embedding", window_ms=_WINDOW_MS, max_batch=CALLERS)
        for turn in range(rounds):
            ids = random.integers(0, 1000, (CALLERS, 8))
            culprit = turn % CALLERS
            ids[culprit, turn % 8] = _OUT_OF_RANGE
            expected = session.run(None, {"ids": np.delete(ids, culprit, axis=0)})[0]
            answers = await asyncio.gather(*(_ask(client, row[None]) for row in ids))
            _count(report, answers, culprit, expected)
        report.largest_batch = await _largest_batch(client)
    return report


async def _ask(client: AsyncClient, ids: Array) -> Array | InferenceError:
    try:
        return (await client.predict("embedding", {"ids": ids}))["y"]
    except InferenceError as error:
        return error


def _count(
    report: Report, answers: list[Array | InferenceError], culprit: int, expected: Array
) -> None:
    report.poisoned_answered += not isinstance(answers.pop(culprit), InferenceError)
    for answer, right in zip(answers, expected, strict=True):
        if isinstance(answer, InferenceError):
            report.good_failed += 1
        elif np.array_equal(answer[0], right):
            report.good_answered += 1
        else:
            report.good_wrong += 1


async def _largest_batch(client: AsyncClient) -> int:
    """Rows that sixteen requests without a culprit leave in: shows that they are one batch."""
    ids = np.zeros((1, 8), np.int64)
    asked = [client.infer("embedding", {"ids": ids}, explain=True) for _ in range(CALLERS)]
    timings = [prediction.timing for prediction in await asyncio.gather(*asked)]
    return max(timing.batch_size for timing in timings if timing is not None)


def run(rounds: int) -> Report:
    """Starts a server, poisons it, and stops it."""
    with (
        tempfile.TemporaryDirectory(prefix="inflight-poison-") as folder,
        serving(write_repository(Path(folder), ["embedding"])) as server,
    ):
        return asyncio.run(poison(server.grpc, rounds))


def main() -> int:
    parser = argparse.ArgumentParser(description="One poisoned request among sixteen.")
    parser.add_argument("--rounds", type=int, default=100, help="default: 100")
    arguments = parser.parse_args()
    report = run(arguments.rounds)
    print(json.dumps({**asdict(report), "passed": report.passed}, indent=2))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
