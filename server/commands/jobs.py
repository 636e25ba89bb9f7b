"""`inflight jobs`: the optimizations of a server: list them, look at one, watch it, cancel it."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from client import AsyncClient, Client, InferenceError
from optimizer.stage_runner import PRINTED
from protos import optimization_pb2 as pb
from server.commands.connection import CommandError, add_url, ask, fail, positive
from server.commands.models import as_dict
from server.commands.screen import Screen, open_screen, until_left
from server.commands.table import milliseconds, table

_ACTIONS = ("list", "show", "watch", "cancel")
_ENDS = (
    pb.JOB_STATE_COMPLETED,
    pb.JOB_STATE_REJECTED,
    pb.JOB_STATE_FAILED,
    pb.JOB_STATE_CANCELLED,
)
_BAR = 30  # characters
_LOG_LINES = 10


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "jobs",
        help="list, show, watch or cancel the optimizations of a server",
        description="Without an action lists the jobs. Without an id, show and watch mean the"
        " latest job; cancel wants one. watch ends with the job: exit code 0 where something better"
        " was found or nothing is better, 1 where it failed or was cancelled.",
    )
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="list", metavar="ACTION",
                        help=f"{', '.join(_ACTIONS)} (default: list)")  # fmt: skip
    parser.add_argument("id", nargs="?", default="", metavar="ID", help="opt-...")
    parser.add_argument("--model", default="", metavar="MODEL", help="only jobs of this model")
    parser.add_argument("--limit", type=positive, default=20, metavar="N",
                        help="most jobs listed (default: 20)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON (list, show)")
    add_url(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "watch":
        return _run_watch(arguments)
    question = {"list": _list, "show": _show, "cancel": _cancel}[arguments.action]
    return ask(arguments.url, lambda client: question(client, arguments))


def _list(client: Client, arguments: argparse.Namespace) -> None:
    jobs = client.optimizations(arguments.model, limit=arguments.limit)
    print(json.dumps([as_dict(job) for job in jobs], indent=2) if arguments.json else listed(jobs))


def _show(client: Client, arguments: argparse.Namespace) -> None:
    job = client.optimization(arguments.id or _latest(client.optimizations(arguments.model)))
    print(json.dumps(_whole(job), indent=2) if arguments.json else described(job))


def _cancel(client: Client, arguments: argparse.Namespace) -> None:
    if not arguments.id:
        raise CommandError("cancel needs the ID of a job (inflight jobs lists them)")
    job = client.cancel_optimization(arguments.id)
    print(f"{job.id}: {state_name(job.state) if job.state in _ENDS else 'is being cancelled'}")


def _latest(jobs: Sequence[pb.OptimizationJob]) -> str:
    if not jobs:
        raise CommandError("the server has no jobs", exit_code=1)
    return jobs[0].id


def _whole(job: pb.OptimizationJob) -> dict[str, Any]:
    value = as_dict(job)
    report = value.pop("report_json")
    return value | {"report": json.loads(report) if report else None}


def state_name(state: pb.JobState) -> str:
    return pb.JobState.Name(state).removeprefix("JOB_STATE_").lower()


def listed(jobs: Sequence[pb.OptimizationJob]) -> str:
    """The table of jobs."""
    if not jobs:
        return "the server has no jobs"
    header = ("ID", "MODEL", "VER", "STATE", "DONE %", "SINCE", "TOOK S", "SERVES", "WHY")
    return table(header, [_row(job) for job in jobs])


def _row(job: pb.OptimizationJob) -> tuple[str, ...]:
    ended = job.ended_ms or 0
    took = f"{(ended - job.started_ms) / 1e3:.1f}" if ended and job.started_ms else "-"
    return (
        job.id,
        job.model,
        str(job.version),
        state_name(job.state),
        f"{job.percent:.0f}",
        f"{datetime.fromtimestamp(job.created_ms / 1e3):%m-%d %H:%M:%S}",
        took,
        "yes" if job.is_serving else "-",
        job.not_serving_reason or job.reason or job.phase,
    )


def described(job: pb.OptimizationJob) -> str:
    """One job with its candidates, for people."""
    lines = [f"{job.id}  {job.model} version {job.version}  {_state(job)}"]
    if job.state not in _ENDS:
        done = round(_BAR * job.percent / 100)
        lines.append(f"  [{'#' * done}{'.' * (_BAR - done)}] {job.percent:.0f} %  {job.phase}")
    if job.artifact_id:
        serves = "serves" if job.is_serving else "does not serve"
        lines.append(f"  {job.artifact_id} ({', '.join(job.techniques)}) {serves}")
    notes = (job.reason, job.not_serving_reason and f"not serving: {job.not_serving_reason}")
    lines += [f"  {note}" for note in notes if note]
    if job.candidates:
        header = ("CANDIDATE", "STATE", "P50 MS", "SCORE", "MB", "WHY")
        text = table(header, [_candidate(candidate) for candidate in job.candidates])
        lines += ["", *text.splitlines()]
    if job.log and job.state not in _ENDS:
        lines += ["", *job.log[-_LOG_LINES:]]
    return "\n".join(lines)


def _state(job: pb.OptimizationJob) -> str:
    waits = job.state == pb.JOB_STATE_QUEUED and job.queue_position
    return state_name(job.state) + (f", {job.queue_position} before it" if waits else "")


def _candidate(candidate: pb.OptimizationCandidate) -> tuple[str, ...]:
    return (
        candidate.name,
        candidate.state,
        milliseconds(candidate.p50_ms) if candidate.p50_ms else "-",
        f"{candidate.score:.4f}" if candidate.HasField("score") else "-",
        f"{candidate.size_bytes / 1e6:.2f}" if candidate.size_bytes else "-",
        candidate.reason,
    )


def _run_watch(arguments: argparse.Namespace) -> int:
    try:
        return asyncio.run(_watch(arguments))
    except (InferenceError, CommandError) as error:
        return fail(error, arguments.url)


async def _watch(arguments: argparse.Namespace) -> int:
    async with AsyncClient(arguments.url) as client:
        job_id = arguments.id or _latest(await client.optimizations(arguments.model))
        title = f"inflight jobs watch {job_id}  {arguments.url}  q quits, the job goes on"
        with open_screen(sys.stdout, sys.stdin, title) as screen:
            await until_left(_draw(client.watch_optimization(job_id), screen), screen)
        job = await client.optimization(job_id)
    if sys.stdout.isatty():  # the screen is gone
        print(described(job))
    failed = (pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)
    return 1 if job.state in failed else 0


async def _draw(jobs: AsyncIterator[pb.OptimizationJob], screen: Screen) -> None:
    """On a terminal every state, elsewhere what is new in the log and the end."""
    told = ""
    async for job in jobs:
        if screen.is_live:
            screen.show(described(job))
            continue
        lines = _told(_after(told, list(job.log)), job.percent)
        told = job.log[-1] if job.log else ""
        if lines:
            screen.add("\n".join(lines))
        if job.state in _ENDS:
            screen.show(described(job))


def _told(log: Sequence[str], percent: float) -> list[str]:
    """New lines of a log. How far the job was at any but the last is not known."""
    lines = [line for line in log if not line.startswith(PRINTED)]
    return [f"{'':5}  {line}" for line in lines[:-1]] + [
        f"{percent:3.0f} %  {line}" for line in lines[-1:]
    ]


def _after(told: str, log: list[str]) -> list[str]:
    """The lines of a log, of which only the last are kept, that came after one."""
    place = len(log) - log[::-1].index(told) if told in log else 0
    return log[place:]
