"""`inflight window`: how a model batches, shown, or changed while it serves."""

import argparse
from collections.abc import Iterable
from typing import Any

from client import Client
from client.control import BatchingChange
from protos import models_pb2 as pb
from server.commands.connection import add_model, add_url, ask, duration_ms, whole
from server.commands.table import milliseconds, table


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "window",
        help="show or change how a model batches, while it serves",
        description="Without an option, shows the settings in force. A change is effective with "
        "the next batch and lasts until the model is reloaded.",
    )
    add_model(parser)
    for flag, kind, text in (
        (
            "--window-ms",
            duration_ms,
            "longest wait for companions; 0: an idle instance takes what is there",
        ),
        ("--max-batch", whole, "most rows in one batch"),
        ("--queue-limit", whole, "requests that may wait; 0: no limit"),
        ("--queue-timeout-ms", duration_ms, "longest wait in the queue; 0: no limit"),
        (
            "--slo-p99-ms",
            duration_ms,
            "the p99 latency aimed at, shown beside the measured one; 0: none",
        ),
    ):
        metavar = "N" if kind is whole else "X"
        parser.add_argument(flag, type=kind, default=None, metavar=metavar, help=text)
    add_url(parser)


def run(arguments: argparse.Namespace) -> int:
    def question(client: Client) -> None:
        name, version = arguments.model, arguments.model_version
        change = _change(arguments)
        if change:
            answer = client.set_batching(name, version=version, **change)
            print(changes(answer))
            batching = client.batching(name, version=answer.version).batching
            if not batching.enabled:
                print(f"batching is {_verdict(batching)}")
        else:
            latency = client.latency(name, version=version, window_s=60)
            print(show(client.batching(name, version=version), latency))

    return ask(arguments.url, question)


def show(answer: pb.GetBatchingResponse, latency: Iterable[pb.ModelLatency]) -> str:
    """The settings in force, and the measured p99 beside its target."""
    batching = answer.batching
    rows = [*_settings(batching.settings), ("measured p99", _measured(latency, answer.version))]
    lines = [f"{answer.model} version {answer.version}", f"  {'batching':<16}{_verdict(batching)}"]
    return "\n".join(lines + [f"  {name:<16}{text}" for name, text in rows])


def changes(answer: pb.SetBatchingResponse) -> str:
    """What is different now."""
    before = dict(_settings(answer.previous))
    rows = [
        (name, before.get(name, "-"), now)
        for name, now in _settings(answer.settings)
        if before.get(name) != now
    ]
    title = f"{answer.model} version {answer.version}"
    if not rows:
        return f"{title}: nothing changed, these settings were in force already"
    return f"{title}\n" + table(("SETTING", "WAS", "NOW"), rows)


def _change(arguments: argparse.Namespace) -> BatchingChange:
    asked = {
        "window_ms": arguments.window_ms,
        "max_batch": arguments.max_batch,
        "queue_limit": arguments.queue_limit,
        "queue_timeout_ms": arguments.queue_timeout_ms,
        "slo_p99_ms": arguments.slo_p99_ms,
    }
    given: Any = {name: value for name, value in asked.items() if value is not None}
    change: BatchingChange = given
    return change


def _verdict(batching: pb.Batching) -> str:
    return "on" if batching.enabled else f"off, requests run one by one: {batching.reason}"


def _settings(settings: pb.BatchingSettings) -> list[tuple[str, str]]:
    window = "none, an idle instance takes what is there"
    return [
        ("window", f"{settings.window_ms:g} ms" if settings.window_ms else window),
        ("max batch", str(settings.max_batch)),
        ("queue limit", str(settings.queue_limit or "none")),
        ("queue timeout", _or_none(settings.queue_timeout_ms, f", then {settings.timeout_action}")),
        ("priorities", f"{settings.priority_levels}, default {settings.default_priority}"),
        *(
            (
                f"  level {level}",
                f"queue limit {queue.queue_limit or 'none'}, queue timeout "
                + _or_none(queue.queue_timeout_ms),
            )
            for level, queue in sorted(settings.priority_queues.items())
        ),
        ("ordering", "kept" if settings.preserve_ordering else "as answers become ready"),
        ("target p99", _or_none(settings.slo_p99_ms)),
    ]


def _or_none(value_ms: float, suffix: str = "") -> str:
    return f"{value_ms:g} ms{suffix}" if value_ms else "none"


def _measured(latency: Iterable[pb.ModelLatency], version: int) -> str:
    for one in latency:
        if one.version == version and one.total.count:
            return f"{milliseconds(one.total.p99_ms)} ms over the last {one.window_s} s"
    return "no requests in the last 60 s"
