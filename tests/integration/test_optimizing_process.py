"""The server as a process with the real optimizer, seen through the command line and REST."""

import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from client import Client
from protos import optimization_pb2 as pb
from server.__main__ import main
from tests import models
from tests.integration.server_process import serving, starting, write_models

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[int, str, str]:
        code = main([*words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


@pytest.mark.slow
def test_a_real_job_from_the_command_line(tmp_path: Path, run: Run) -> None:
    write_models(tmp_path / "models", {"mlp/1/model.onnx": models.mlp()})
    with serving(tmp_path) as address, Client(address, timeout_s=60) as client:
        assert run("jobs", "--url", address) == (0, "the server has no jobs\n", "")
        assert run("jobs", "show", "--url", address)[0] == 1
        job = client.optimize("mlp", quick=True)
        code, out, err = run("jobs", "watch", job.id, "--url", address)
        assert (code, err) == (0, "")
        assert f"{job.id}  mlp version 1  " in out
        done = client.optimization(job.id)
        assert done.state in (pb.JOB_STATE_COMPLETED, pb.JOB_STATE_REJECTED), done.reason
        measured = [c.name for c in done.candidates if c.state == "measured"]
        assert "original, ONNX Runtime" in measured
        code, out, _ = run("jobs", "--url", address)
        header, line = (text.split()[:3] for text in out.splitlines())
        assert (header, line) == (["ID", "MODEL", "VER"], [job.id, "mlp", "1"])
        code, out, _ = run("jobs", "show", job.id, "--json", "--url", address)
        assert json.loads(out)["report"]["optimization_id"] == job.id
        code, out, err = run("jobs", "cancel", job.id, "--url", address)
        assert (code, out) == (1, "")
        assert "has ended already" in err
        code, _, err = run("models", "--roll-back", "--url", address)
        assert (code, "need a MODEL" in err) == (2, True)
        code, _, err = run("models", "mlp", "--roll-back", "--url", address)
        if not done.is_serving:
            assert code == 1
            assert "is served from its own file already" in err
    with serving(tmp_path) as address, Client(address) as client:
        again = client.optimize("mlp", quick=True)  # the store remembers how it ended
        *_, last = client.watch_optimization(again.id)
        assert last.state == done.state
        assert any("found in the store" in line for line in last.log)


def children(pid: int) -> Iterator[int]:
    """All processes below one."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from children(child)


def begin(client: Client, server: int) -> tuple[pb.OptimizationJob, list[int]]:
    """A job, when processes work on it, and those processes."""
    job = client.optimize("slow")
    with closing(client.watch_optimization(job.id)) as states:
        for state in states:
            if below := list(children(server)):
                return state, below
    raise AssertionError(f"the job has ended: {state}")


def test_a_killed_server_leaves_no_process_and_says_so_after_its_restart(tmp_path: Path) -> None:
    write_models(tmp_path / "models", {"slow/1/model.onnx": models.slow(256)})
    with starting(tmp_path) as (process, address):
        with Client(address, timeout_s=60) as client:
            job, below = begin(client, process.pid)
            watched = [os.pidfd_open(pid) for pid in below]
        process.send_signal(signal.SIGKILL)
        process.wait()
    until_gone(watched)
    with serving(tmp_path) as address, Client(address) as client:
        record = client.optimization(job.id)
        assert record.state == pb.JOB_STATE_FAILED
        assert record.reason == "the server was restarted while it ran"
    assert [*(tmp_path / "state" / "work").iterdir()] == []


def test_stopping_the_server_ends_the_processes_of_a_job(tmp_path: Path) -> None:
    write_models(tmp_path / "models", {"slow/1/model.onnx": models.slow(256)})
    with starting(tmp_path) as (process, address):
        with Client(address, timeout_s=60) as client:
            job, below = begin(client, process.pid)
            watched = [os.pidfd_open(pid) for pid in below]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    until_gone(watched)
    with serving(tmp_path) as address, Client(address) as client:
        record = client.optimization(job.id)
        assert record.state == pb.JOB_STATE_CANCELLED
        assert record.reason == "the server was stopped"


def until_gone(processes: list[int]) -> None:
    """Waits for processes, as descriptors, that are not children of this one."""
    for descriptor in processes:
        readable, _, _ = select.select([descriptor], [], [], 30)
        assert readable, "a process of the job outlives the server"
        os.close(descriptor)
