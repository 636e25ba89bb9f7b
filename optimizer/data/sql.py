"""Rows out of a database, read-only: SQLite with nothing installed, PostgreSQL by SQLAlchemy.

The connection is one that the operator named; whoever asks names it and brings a query, never a
URL. A query is one SELECT (or WITH ... SELECT), and the database is told to write nothing whatever
the query says: SQLite opens the file read-only and authorizes reading alone, PostgreSQL runs a
read-only transaction. No message holds a URL or a password.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from optimizer.data.found import Found, listed
from optimizer.data.spec import DataSpec
from optimizer.data.statement import check_statement
from optimizer.errors import DataError, Unavailable

_FETCH = 1000  # rows at once, between two looks at the clock
_STEPS = 10_000  # of SQLite's virtual machine, between two looks at the clock
_LONGEST_VALUE = 1 << 26  # bytes of one SQLite value: a query can make up larger ones
_CONNECT_S = 10
_CANCELED = "57014"  # PostgreSQL's query_canceled
_READS = frozenset(
    (
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_RECURSIVE,
    )
)

_Fetch = Callable[[int], Sequence[Sequence[Any]]]


def read(spec: DataSpec, databases: Mapping[str, str]) -> Found:
    """The columns of a query's result, at most `row_limit` rows of them.

    Raises:
        DataError: no such connection, no SELECT, a database that refuses, or it took too long.
        Unavailable: PostgreSQL without SQLAlchemy or psycopg.
    """
    if spec.query is None:
        raise DataError("data of source 'sql': expected a query, got none")
    url = databases.get(spec.database)
    if url is None:
        raise DataError(
            f"no database '{spec.database}', the configuration names {listed(list(databases))}"
        )
    query = check_statement(spec.query)
    where = f"database '{spec.database}'"
    opened = _sqlite if url.partition(":")[0].partition("+")[0] == "sqlite" else _postgresql
    deadline = time.monotonic() + spec.timeout_s
    with opened(url, query, spec.timeout_s, where) as (names, fetch):
        rows = _fetched(fetch, spec, deadline, where)
    is_cut = len(rows) > spec.row_limit
    notes = (f"cut off after {spec.row_limit:,} rows",) if is_cut else ()
    return Found(_columns(names, rows[: spec.row_limit], where), True, notes)


def _fetched(fetch: _Fetch, spec: DataSpec, deadline: float, where: str) -> list[Sequence[Any]]:
    """One row more than the limit where there are more."""
    rows: list[Sequence[Any]] = []
    while len(rows) <= spec.row_limit:
        more = fetch(min(_FETCH, spec.row_limit + 1 - len(rows)))
        rows += more
        if not more:
            break
        if time.monotonic() > deadline:
            raise _too_long(where, spec.timeout_s)
    return rows


def _columns(
    names: Sequence[str], rows: Sequence[Sequence[Any]], where: str
) -> dict[str, np.ndarray[Any, Any]]:
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: column '{twice}' is there twice: name them with AS")
    columns = {}
    for index, name in enumerate(names):
        column = np.empty(len(rows), dtype=object)
        column[:] = [_plain(row[index]) for row in rows]
        columns[name] = column
    return columns


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview | bytearray) else value


@contextmanager
def _sqlite(
    url: str, query: str, timeout_s: float, where: str
) -> Iterator[tuple[list[str], _Fetch]]:
    """Opens the file read-only; no other statement than reading is authorized."""
    path = Path(unquote(url.partition(":///")[2].partition("?")[0]))
    if not path.is_file():
        raise DataError(f"{where}: its SQLite file does not exist")
    deadline = time.monotonic() + timeout_s
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, timeout=timeout_s
        )
        with closing(connection):
            connection.execute("PRAGMA query_only = ON")
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
            connection.set_authorizer(_authorize)
            connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
            cursor = connection.execute(query)
            yield [item[0] for item in cursor.description], cursor.fetchmany
    except sqlite3.Error as error:
        if str(error) == "interrupted":
            raise _too_long(where, timeout_s) from None
        raise DataError(f"{where}: {error}") from None


def _authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
    is_loading = action == sqlite3.SQLITE_FUNCTION and second == "load_extension"
    return sqlite3.SQLITE_OK if action in _READS and not is_loading else sqlite3.SQLITE_DENY


@contextmanager
def _postgresql(
    url: str, query: str, timeout_s: float, where: str
) -> Iterator[tuple[list[str], _Fetch]]:
    """A read-only transaction with a time limit that the server keeps, rolled back at the end."""
    sqlalchemy = _sqlalchemy(where)
    address = _address(sqlalchemy, url, where)
    engine = sqlalchemy.create_engine(
        address,
        poolclass=sqlalchemy.pool.NullPool,
        connect_args={"connect_timeout": min(_CONNECT_S, max(2, int(timeout_s)))},
    )
    limit_ms = max(1, int(timeout_s * 1000))
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {limit_ms}")
            # From the first query on, the transaction cannot be made to write any more.
            connection.exec_driver_sql("SELECT 1")
            # A cursor of the server's takes one statement alone, whatever `check_statement` read.
            streaming = connection.execution_options(stream_results=True, no_parameters=True)
            with closing(streaming.exec_driver_sql(query)) as result:
                yield list(map(str, result.keys())), result.fetchmany
    except sqlalchemy.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _CANCELED:
            raise _too_long(where, timeout_s) from None
        reason = _without(str(error.orig).strip(), address.password)
        raise DataError(f"{where}: {reason}") from None
    finally:
        engine.dispose()


def _sqlalchemy(where: str) -> Any:
    try:
        import psycopg  # noqa: F401, PLC0415 - extras
        import sqlalchemy  # noqa: PLC0415
        import sqlalchemy.exc  # noqa: PLC0415
        import sqlalchemy.pool  # noqa: PLC0415
    except ImportError as error:
        needs = "needs SQLAlchemy and psycopg: install inflight[sql]"
        raise Unavailable(f"{where} {needs} ({error.name} is missing)") from None
    return sqlalchemy


def _address(sqlalchemy: Any, url: str, where: str) -> Any:
    try:
        address = sqlalchemy.engine.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise DataError(f"{where}: its URL in the configuration cannot be read") from None
    kind = address.drivername.partition("+")[0]
    if kind not in ("postgresql", "postgres"):
        raise DataError(f"{where}: expected an sqlite or postgresql URL, got one of '{kind}'")
    return address.set(drivername="postgresql+psycopg")


def _without(text: str, password: str | None) -> str:
    return text.replace(password, "***") if password else text


def _too_long(where: str, timeout_s: float) -> DataError:
    return DataError(f"{where}: the query took longer than {timeout_s:g} s")
