from collections.abc import Callable

import pytest

from optimizer.candidate import Candidate, Outcome, State, Timing, Verdict
from optimizer.job import LOG_LINES, CandidateProgress, IllegalTransition, Job, JobState, new_id

Move = Callable[[Job], Job]

MOVES: dict[JobState, Move] = {
    JobState.RUNNING: lambda job: job.begin(2.0),
    JobState.COMPLETED: lambda job: job.complete(3.0, "int8-1", ("int8_static",), "{}"),
    JobState.REJECTED: lambda job: job.reject(3.0, "nothing is faster", "{}"),
    JobState.FAILED: lambda job: job.fail(3.0, "no such file"),
    JobState.CANCELLED: lambda job: job.cancel(3.0),
}
ENDS = [state for state in JobState if state not in (JobState.QUEUED, JobState.RUNNING)]


def queued() -> Job:
    return Job(id="opt-1", model="digits", version=1, created_s=1.0, goal={"techniques": ["fp16"]})


def running() -> Job:
    return queued().begin(2.0)


def job_in(state: JobState) -> Job:
    if state is JobState.QUEUED:
        return queued()
    return running() if state is JobState.RUNNING else MOVES[state](running())


LEGAL = {
    (JobState.QUEUED, JobState.RUNNING),
    (JobState.QUEUED, JobState.FAILED),
    (JobState.QUEUED, JobState.CANCELLED),
    *((JobState.RUNNING, end) for end in ENDS),
}


@pytest.mark.parametrize("begin", JobState)
@pytest.mark.parametrize("end", MOVES)
def test_transitions(begin: JobState, end: JobState) -> None:
    job = job_in(begin)
    if (begin, end) in LEGAL:
        assert MOVES[end](job).state is end
        return
    with pytest.raises(IllegalTransition, match=f"job opt-1 is {begin} and cannot become {end}"):
        MOVES[end](job)


@pytest.mark.parametrize("state", JobState)
def test_ends(state: JobState) -> None:
    job = job_in(state)
    assert job.is_ended == (state in ENDS)
    assert bool(job.ended_s) == job.is_ended


def test_progress() -> None:
    candidates = (CandidateProgress("int8", State.BUILDING),)
    job = running().show("building", 20.0, candidates, "began")
    job = job.show("measuring", 60.0)
    assert (job.phase, job.percent, job.candidates) == ("measuring", 60.0, candidates)
    assert job.log == ("began",)
    assert job.fail(3.0, "why").phase == ""


@pytest.mark.parametrize("state", [JobState.QUEUED, *ENDS])
def test_no_progress_unless_it_runs(state: JobState) -> None:
    with pytest.raises(IllegalTransition, match="makes no progress"):
        job_in(state).show("building", 1.0)


def test_log_is_bounded() -> None:
    job = running()
    for number in range(LOG_LINES + 5):
        job = job.show("building", 0.0, line=str(number))
    assert len(job.log) == LOG_LINES
    assert job.log[-1] == str(LOG_LINES + 4)


@pytest.mark.parametrize("state", JobState)
def test_as_json_and_back(state: JobState) -> None:
    job = job_in(state)
    if state is JobState.RUNNING:
        shown = CandidateProgress("int8", State.REFUSED, "cosine 0.64", ("int8_static",), 5, 0.64)
        job = job.show("validating", 50.0, (shown,), "refused")
    assert Job.from_json(job.to_json(), job.report) == job


def test_candidate_of_an_outcome() -> None:
    candidate = Candidate("int8", (), "onnxruntime", techniques=("int8_static",))
    assert CandidateProgress.of(Outcome(candidate)) == CandidateProgress(
        "int8", State.WAITING, techniques=("int8_static",)
    )
    verdict = Verdict(True, "top1", 0.998, 0.99)
    timing = Timing(1, 200, 0.001, 0.002, 0.003, 0.004, 500.0)
    outcome = Outcome(candidate, State.MEASURED, "fine", None, 7, verdict, (timing,))
    assert CandidateProgress.of(outcome) == CandidateProgress(
        "int8", State.MEASURED, "fine", ("int8_static",), 7, 0.998, 2.0
    )


def test_ids_differ() -> None:
    assert new_id().startswith("opt-")
    assert len({new_id() for _ in range(100)}) == 100
