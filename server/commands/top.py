"""`inflight top`: the latency of a server's models, live."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from client import AsyncClient, InferenceError
from protos import models_pb2 as pb
from server.commands.connection import CommandError, add_url, fail
from server.commands.screen import Screen, open_screen, until_left
from server.commands.table import milliseconds, rate, table

_BY_NAME = 20  # more models than this are sorted by their rate
_HEADER = (
    *("MODEL", "VER", "RATE/S", "BATCH", "WAITING"),
    *("P50 MS", "P95 MS", "P99 MS", "MAX MS"),
    *("QUEUE P50", "P95", "P99", "MAX"),
    *("COMPUTE P50", "P95", "P99", "MAX"),
)


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "top",
        help="watch the latency of a server's models",
        description="Times are milliseconds over the window: arrival to answer, then the parts "
        "spent waiting in the queue and computing. BATCH is the mean rows of the batches since "
        "the last look, WAITING the requests in the queue now. Beyond 20 models the busiest come "
        "first. q or Ctrl-C ends it.",
    )
    parser.add_argument(
        "--interval-s", type=_interval, default=1.0, metavar="X",
        help="seconds between two looks, at least 0.1 (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--window-s", type=int, choices=(1, 10, 60, 300), default=10,
        help="seconds to look back (default: 10)",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="print one table and end")
    add_url(parser)


def run(arguments: argparse.Namespace) -> int:
    try:
        asyncio.run(_watch(arguments))
    except (InferenceError, CommandError) as error:
        return fail(error, arguments.url)
    except KeyboardInterrupt:
        pass  # the usual way to end it
    return 0


async def _watch(arguments: argparse.Namespace) -> None:
    async with AsyncClient(arguments.url) as client:
        if arguments.once:
            models = await client.latency(window_s=arguments.window_s)
            print(Tables().next(models))
            return
        title = f"inflight top  {arguments.url}  last {arguments.window_s} s  q quits"
        frames = client.watch_latency(window_s=arguments.window_s, interval_s=arguments.interval_s)
        with open_screen(sys.stdout, sys.stdin, title) as screen:
            await until_left(_draw(frames, screen), screen)
    if not screen.is_left:
        raise CommandError(f"the server at {arguments.url} has stopped", exit_code=1)


async def _draw(frames: AsyncIterator[list[pb.ModelLatency]], screen: Screen) -> None:
    tables = Tables()
    async for models in frames:
        screen.show(tables.next(models))


class Tables:
    """One table per look. Remembers the batches of the look before, to tell those since."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, int], tuple[int, int]] = {}

    def next(self, models: Sequence[pb.ModelLatency]) -> str:
        if not models:
            return "no model is ready"
        if len(models) > _BY_NAME:
            models = sorted(models, key=lambda model: model.total.rate, reverse=True)
        return table(_HEADER, [self._row(model) for model in models])

    def _row(self, model: pb.ModelLatency) -> tuple[str, ...]:
        return (
            model.model,
            str(model.version),
            rate(model.total.rate),
            self._mean_batch(model),
            str(model.queue_depth),
            *_quantiles(model.total),
            *_quantiles(model.queue),
            *_quantiles(model.compute),
        )

    def _mean_batch(self, model: pb.ModelLatency) -> str:
        key = (model.model, model.version)
        batches, rows = self._before.get(key, (0, 0))
        self._before[key] = (model.batches, model.rows)
        if model.batches <= batches:  # none since, or the version was loaded anew
            return "-"
        return f"{(model.rows - rows) / (model.batches - batches):.1f}"


def _quantiles(stage: pb.StageLatency) -> tuple[str, ...]:
    if not stage.count:
        return ("-",) * 4
    values = (stage.p50_ms, stage.p95_ms, stage.p99_ms, stage.max_ms)
    return tuple(milliseconds(value) for value in values)


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds < 86400:
        raise argparse.ArgumentTypeError(f"expected seconds, at least 0.1, got {text!r}")
    return seconds
