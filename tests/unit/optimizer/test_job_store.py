import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from optimizer.candidate import State
from optimizer.errors import OptimizationError
from optimizer.job import CandidateProgress, Job, JobState
from optimizer.job_store import JobStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / "jobs.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[JobStore]:
    with closing(JobStore(path)) as store:
        yield store


def job(number: int, model: str = "digits") -> Job:
    return Job(id=f"opt-{number}", model=model, version=1, created_s=float(number))


def ended(number: int, model: str = "digits") -> Job:
    return job(number, model).begin(1.0).complete(2.0, "int8-1", ("int8_static",), '{"a": 1}')


def ids(jobs: list[Job]) -> list[str]:
    return [job.id for job in jobs]


def test_what_is_saved_is_there_after_a_restart(path: Path) -> None:
    candidates = (CandidateProgress("int8", State.MEASURED, "", ("int8_static",), 5, 0.99, 1.5),)
    saved = job(1).begin(1.0).show("measuring", 50.0, candidates, "a line")
    with closing(JobStore(path)) as store:
        store.save(saved)
        saved = saved.complete(3.0, "int8-1", ("int8_static",), '{"status": "completed"}')
        store.save(saved)
        assert store.get("opt-1") == saved
    with closing(JobStore(path)) as store:
        assert store.get("opt-1") == saved
        assert store.latest() == [replace(saved, report="")]
        assert store.get("opt-2") is None


def test_latest_come_first_and_by_model(store: JobStore) -> None:
    for number in range(4):
        store.save(job(number, "digits" if number % 2 else "letters"))
    assert ids(store.latest()) == ["opt-3", "opt-2", "opt-1", "opt-0"]
    assert ids(store.latest("digits")) == ["opt-3", "opt-1"]
    assert ids(store.latest(limit=1)) == ["opt-3"]
    assert store.latest("other") == []


def test_only_the_latest_are_kept_and_all_that_have_not_ended(path: Path) -> None:
    with closing(JobStore(path, limit=3)) as store:
        store.save(job(0))
        for number in range(1, 7):
            store.save(ended(number))
        assert ids(store.latest()) == ["opt-6", "opt-5", "opt-4", "opt-0"]


@pytest.mark.parametrize(
    ("left", "says"),
    [
        (job(1), "the server was restarted while it waited"),
        (job(1).begin(1.0).show("building", 5.0), "the server was restarted while it ran"),
    ],
)
def test_jobs_of_a_process_that_is_gone_are_failed(path: Path, left: Job, says: str) -> None:
    code = (
        "import os, sys; from pathlib import Path; from optimizer.job_store import JobStore\n"
        "from optimizer.job import Job; import json\n"
        "JobStore(Path(sys.argv[1])).save(Job.from_json(json.loads(sys.argv[2])))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, str(path), json.dumps(left.to_json())]
    subprocess.run(command, check=False)
    with closing(JobStore(path, now=lambda: 9.0)) as store:
        found = store.get("opt-1")
    assert found == left.fail(9.0, says)


def test_jobs_of_another_process_that_lives_are_left_alone(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from optimizer.job_store import JobStore\n"
        "from optimizer.job import Job\n"
        "JobStore(Path(sys.argv[1])).save(Job(id='opt-1', model='m', version=1).begin(1.0))\n"
        "print('saved', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"saved\n"
        with closing(JobStore(path)) as store:
            found = store.get("opt-1")
            assert found is not None
            assert found.state is JobState.RUNNING
        process.kill()


def test_own_jobs_of_before_are_failed(path: Path) -> None:
    with closing(JobStore(path)) as store:
        store.save(job(1))
    with closing(JobStore(path)) as store:
        (found,) = store.latest()
        assert found.state is JobState.FAILED


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def _hole(path: Path) -> None:
    with closing(JobStore(path)) as store:
        for number in range(200):
            store.save(ended(number))
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 6] = b"\xff" * 4096 * 4
    path.write_bytes(content)


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _other_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE jobs (id TEXT)")
        connection.execute("PRAGMA user_version = 1")


@pytest.mark.parametrize("spoil", [_garbage, _hole, _newer, _other_table])
def test_unreadable_file_is_moved_aside(
    path: Path, spoil: object, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    assert callable(spoil)
    spoil(path)
    with closing(JobStore(path, now=lambda: 9.0)) as store:
        store.save(job(1))
        assert ids(store.latest()) == ["opt-1"]
    assert "and begun anew" in caplog.text
    assert path.with_name("jobs.sqlite.damaged-9").is_file()


def test_a_locked_file_is_not_taken_for_a_damaged_one(
    path: Path, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(ended(1))
    monkeypatch.setattr("optimizer.job_store._BUSY_S", 0.0)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OptimizationError, match="database is locked"):
            JobStore(path)
    assert store.get("opt-1")


def test_one_unreadable_record_does_not_hurt_others(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(JobStore(path)) as store:
        store.save(ended(1))
        store.save(ended(2))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET record = '{}' WHERE id = 'opt-1'")
    with closing(JobStore(path)) as store:
        assert ids(store.latest()) == ["opt-2"]
        assert store.get("opt-1") is None
    assert "job opt-1 cannot be read" in caplog.text


def test_jobs_survive_a_full_disk_in_memory(
    path: Path, store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(ended(1))
    with closing(sqlite3.connect(path)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    limited = store._connection
    limited.execute(f"PRAGMA max_page_count = {pages}")
    large = replace(ended(2), report="x" * 100_000)
    store.save(large)
    assert "only kept in memory for now: database or disk is full" in caplog.text
    assert store.get("opt-2") == large
    assert ids(store.latest()) == ["opt-2", "opt-1"]
    limited.execute("PRAGMA max_page_count = 1000000")
    store.save(ended(3))
    with closing(JobStore(path)) as other:
        assert other.get("opt-2") == large


def test_threads_and_processes_take_turns(path: Path, store: JobStore) -> None:
    with closing(JobStore(path)) as other, ThreadPoolExecutor(4) as pool:
        list(pool.map(store.save, map(ended, range(0, 40, 2))))
        list(pool.map(other.save, map(ended, range(1, 40, 2))))
    assert len(store.latest()) == 40


def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OptimizationError, match=r"jobs\.sqlite': no store for jobs"):
        JobStore(tmp_path / "file" / "jobs.sqlite")


def test_what_is_no_json_is_refused_and_hurts_no_other(store: JobStore) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.save(replace(job(1), goal={"what": object()}))
    store.save(job(2))
    assert ids(store.latest()) == ["opt-2"]
