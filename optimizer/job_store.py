"""Remembers jobs across restarts, in SQLite."""

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from optimizer.errors import OptimizationError
from optimizer.job import Job

logger = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
_TABLE = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    created_s REAL NOT NULL,
    is_ended INTEGER NOT NULL,
    owner TEXT NOT NULL,   -- the process that runs it
    record TEXT NOT NULL,  -- JSON, without the report
    report TEXT NOT NULL   -- JSON, empty until there is one
)
"""
_COLUMNS = ("id", "model", "created_s", "is_ended", "owner", "record", "report")
_INDEX = "CREATE INDEX jobs_by_age ON jobs (created_s)"
_SAVE = """
INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET
    is_ended = excluded.is_ended, owner = excluded.owner,
    record = excluded.record, report = excluded.report
"""
_FORGET = """
DELETE FROM jobs WHERE is_ended AND id NOT IN
    (SELECT id FROM jobs ORDER BY created_s DESC, rowid DESC LIMIT ?)
"""
_BUSY_S = 10.0  # to wait for another process that writes


class JobStore:
    """The records of jobs, the latest `limit` of them. Any thread may use it; calls take turns.

    A file that cannot be read is moved aside and begun anew. A job that has not ended, and whose
    process is gone, is failed when the store is opened. Jobs that cannot be written (a full disk)
    are kept in memory and written later, for a record is not worth a job.

    Raises:
        OptimizationError: the file cannot be made.
    """

    def __init__(self, path: Path, limit: int = 1000, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._limit = limit
        self._now = now
        self._owner = _owner(os.getpid())
        self._lock = threading.Lock()
        self._unsaved: dict[str, Job] = {}
        self._connection = self._open()
        try:
            self._fail_abandoned()
        except sqlite3.Error as error:
            raise OptimizationError(f"'{path}': its jobs cannot be read: {error}") from error

    def save(self, job: Job) -> None:
        """Adds a job, or replaces what is known of it. Raises TypeError where it is no JSON."""
        self._row(job)  # what cannot be written now must not keep others from being written later
        with self._lock:
            self._unsaved[job.id] = job
            self._write()

    def get(self, job_id: str) -> Job | None:
        """A job with its report."""
        with self._lock:
            if job_id in self._unsaved:
                return self._unsaved[job_id]
            rows = self._connection.execute(
                "SELECT id, record, report FROM jobs WHERE id = ?", (job_id,)
            )
            return next(self._jobs(rows.fetchall()), None)

    def latest(self, model: str = "", limit: int = 100) -> list[Job]:
        """The latest first, without their reports; of one model, or of all."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT id, record, '' FROM jobs WHERE ? IN ('', model)"
                " ORDER BY created_s DESC, rowid DESC LIMIT ?",
                (model, limit),
            )
            found = {job.id: job for job in self._jobs(rows.fetchall())}
            found |= {job.id: job for job in self._unsaved.values() if model in ("", job.model)}
        return sorted(found.values(), key=lambda job: -job.created_s)[:limit]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _write(self) -> None:
        """Writes what was not written before; called with the lock held."""
        rows = [self._row(job) for job in self._unsaved.values()]
        try:
            with self._connection:
                self._connection.executemany(_SAVE, rows)
                self._connection.execute(_FORGET, (self._limit,))
        except sqlite3.Error as error:
            logger.warning("'%s': jobs are only kept in memory for now: %s", self._path, error)
            return
        self._unsaved.clear()

    def _row(self, job: Job) -> tuple[object, ...]:
        record = json.dumps(job.to_json())
        place = (job.id, job.model, job.created_s, job.is_ended, self._owner)
        return (*place, record, job.report)

    def _jobs(self, rows: list[tuple[str, str, str]]) -> Iterator[Job]:
        for job_id, record, report in rows:
            try:
                yield Job.from_json(json.loads(record), report)
            except (ValueError, TypeError, KeyError) as error:
                logger.warning("'%s': job %s cannot be read: %r", self._path, job_id, error)

    def _fail_abandoned(self) -> None:
        rows = self._connection.execute(
            "SELECT id, record, report, owner FROM jobs WHERE NOT is_ended"
        ).fetchall()
        left = [row[:3] for row in rows if row[3] == self._owner or not _is_alive(row[3])]
        for job in list(self._jobs(left)):
            while_what = "ran" if job.started_s else "waited"
            self.save(job.fail(self._now(), f"the server was restarted while it {while_what}"))

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return _connect(self._path)
            except sqlite3.OperationalError:  # locked, no space, no permission: not its content
                raise
            except sqlite3.DatabaseError as error:
                self._move_aside(error)
                return _connect(self._path)
        except (OSError, sqlite3.Error) as error:
            raise OptimizationError(f"'{self._path}': no store for jobs: {error}") from error

    def _move_aside(self, error: sqlite3.Error) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged-{int(self._now())}")
        logger.warning("'%s' is now '%s', and begun anew: %s", self._path, aside, error)
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")


def _connect(path: Path) -> sqlite3.Connection:
    """Raises sqlite3.Error: damaged, or of another version."""
    connection = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    """Makes the tables of a new file."""
    connection.execute("BEGIN IMMEDIATE")  # two processes may come to a new file at once
    with connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.execute(_TABLE)
            connection.execute(_INDEX)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        elif version != _SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"version {version}, expected {_SCHEMA_VERSION}")
        found = tuple(row[1] for row in connection.execute("PRAGMA table_info(jobs)"))
        if found != _COLUMNS:
            raise sqlite3.DatabaseError(f"columns {found}, expected {_COLUMNS}")
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(answer)


def _owner(pid: int) -> str:
    """A process as no other is called: with when it started, for numbers are used again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{pid} {fields[19]} {boot}"


def _is_alive(owner: str) -> bool:
    pid = owner.partition(" ")[0]
    return pid.isdecimal() and _owner(int(pid)) == owner
