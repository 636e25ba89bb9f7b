from collections.abc import AsyncIterator
from io import StringIO

from protos import optimization_pb2 as pb
from server.commands.jobs import _after, _draw, described, listed
from server.commands.screen import Screen

CANDIDATES = [
    pb.OptimizationCandidate(name="original", state="measured", p50_ms=2.0, score=1.0),
    pb.OptimizationCandidate(
        name="int8", state="refused", reason="top1 0.5 of 0.99 asked", size_bytes=2**20, score=0.5
    ),
]


def job(**fields: object) -> pb.OptimizationJob:
    known = {"id": "opt-1", "model": "digits", "version": 2, "created_ms": 1_700_000_000_000}
    return pb.OptimizationJob(**{**known, **fields})  # type: ignore[arg-type]


def test_jobs_are_listed_with_what_became_of_them() -> None:
    ended = job(
        state=pb.JOB_STATE_COMPLETED,
        percent=100,
        started_ms=1_700_000_001_000,
        ended_ms=1_700_000_003_500,
        is_serving=True,
        reason="twice as fast",
    )
    waiting = job(id="opt-2", state=pb.JOB_STATE_QUEUED)
    _, first, second = listed([ended, waiting]).splitlines()
    assert first.split()[:5] == ["opt-1", "digits", "2", "completed", "100"]
    assert first.split()[-5:] == ["2.5", "yes", "twice", "as", "fast"]
    assert second.split()[3] == "queued"
    assert listed([]) == "the server has no jobs"


def test_a_running_job_shows_how_far_it_is() -> None:
    running = job(
        state=pb.JOB_STATE_RUNNING,
        phase="building",
        percent=50,
        candidates=CANDIDATES,
        log=["opening", "trying int8"],
    )
    text = described(running)
    assert "[###############...............] 50 %  building" in text
    assert "top1 0.5 of 0.99 asked" in text
    assert text.endswith("opening\ntrying int8")


def test_a_job_at_its_end_says_what_serves() -> None:
    done = job(
        state=pb.JOB_STATE_COMPLETED,
        artifact_id="int8-1",
        techniques=["int8_static"],
        reason="it is faster",
        not_serving_reason="its requests would run one by one",
        log=["old news"],
    )
    text = described(done)
    assert "int8-1 (int8_static) does not serve" in text
    assert "not serving: its requests would run one by one" in text
    assert "old news" not in text
    waits = job(state=pb.JOB_STATE_QUEUED, queue_position=3)
    assert described(waits).startswith("opt-1  digits version 2  queued, 3 before it")


def test_only_new_lines_of_a_log_are_told() -> None:
    assert _after("", ["a", "b"]) == ["a", "b"]
    assert _after("b", ["a", "b"]) == []
    assert _after("b", ["b", "c"]) == ["c"]
    assert _after("gone", ["c", "d"]) == ["c", "d"]


async def test_outside_a_terminal_every_line_of_the_log_is_told_once() -> None:
    states = [
        job(state=pb.JOB_STATE_RUNNING, percent=5, log=["opening"]),
        job(state=pb.JOB_STATE_RUNNING, percent=40, log=["opening", "converting", "trying int8"]),
        job(state=pb.JOB_STATE_RUNNING, percent=41, log=["opening", "converting", "trying int8"]),
        job(state=pb.JOB_STATE_COMPLETED, percent=100, log=["trying int8", "done"]),
    ]

    async def jobs() -> AsyncIterator[pb.OptimizationJob]:
        for state in states:
            yield state

    out = StringIO()
    await _draw(jobs(), Screen(out))
    assert out.getvalue().splitlines()[:5] == [
        "  5 %  opening",
        "       converting",
        " 40 %  trying int8",
        "100 %  done",
        "opt-1  digits version 2  completed",
    ]
