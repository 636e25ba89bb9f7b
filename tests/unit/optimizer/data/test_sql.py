"""Rows from SQLite, and what a query may not do. PostgreSQL: test_postgresql.py."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from optimizer.data import DataSpec, read
from optimizer.data.statement import check_statement
from optimizer.errors import DataError
from optimizer.samples import Samples
from protos.signature import Signature, TensorSpec

FEATURES = Signature((TensorSpec("X", "FP32", ("batch", 2)),), ())
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


@pytest.fixture
def databases(tmp_path: Path) -> Mapping[str, str]:
    path = tmp_path / "rows.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (a REAL, b INTEGER, label TEXT, ids TEXT)")
        rows = [(i / 2, i, f"k{i % 2}", f"[{i}, {i}]") for i in range(30)]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
    return {"default": f"sqlite:///{path}", "gone": "sqlite:////no/such.db"}


def load(databases: Mapping[str, str], query: str, **more: object) -> Samples:
    spec = DataSpec("sql", query=query, **more)  # type: ignore[arg-type]
    return read(spec, FEATURES, databases)


def test_a_query_gives_rows(databases: Mapping[str, str]) -> None:
    samples = load(databases, "SELECT a, b, label FROM t WHERE label LIKE 'k%' ORDER BY b;")
    assert samples.inputs["X"][:2].tolist() == [[0, 0], [0.5, 1]]
    assert samples.labels is not None
    assert samples.labels[:2].tolist() == [b"k0", b"k1"]
    assert samples.origin == "query on 'default', 30 rows"


def test_missing_values_are_counted(databases: Mapping[str, str]) -> None:
    samples = load(databases, "SELECT NULL AS a, b FROM t")
    assert "30 missing values in 'X'" in samples.origin


def test_lists_are_written_as_json(databases: Mapping[str, str]) -> None:
    assert load(databases, "SELECT ids FROM t ORDER BY b").inputs["X"][2].tolist() == [2, 2]


def test_rows_beyond_the_limit_are_cut_off(databases: Mapping[str, str]) -> None:
    samples = load(databases, "SELECT a, b FROM t", row_limit=7)
    assert samples.rows == 7
    assert "cut off after 7 rows" in samples.origin
    assert "cut off" not in load(databases, "SELECT a, b FROM t", row_limit=30).origin


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT x FROM t", "database 'default': no such column: x"),
        ("SELECT a, a FROM t", "column 'a' is there twice"),
        ("WITH x AS (SELECT 1) DELETE FROM t", "not authorized"),
        ("SELECT load_extension('x')", "not authorized"),
        ("SELECT * FROM pragma_database_list", "not authorized|prohibited"),
        ("DROP TABLE t", "expected SELECT or WITH ... SELECT, got DROP"),
        ("SELECT 1; DROP TABLE t", "expected one statement, got several"),
        ("SELECT a, b FROM t WHERE b < 0", "no rows"),
        ("SELECT zeroblob(1000000000)", "too big"),
    ],
)
def test_nothing_but_reading_is_done(
    databases: Mapping[str, str], query: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(databases, query)
    assert load(databases, "SELECT a, b FROM t").rows == 30


def test_a_query_without_end_is_ended(databases: Mapping[str, str]) -> None:
    with pytest.raises(DataError, match=r"took longer than 0.05 s"):
        load(databases, ENDLESS + "SELECT max(i) AS a, 1 AS b FROM n", timeout_s=0.05)
    samples = load(databases, ENDLESS + "SELECT i AS a, 1 AS b FROM n", row_limit=2500)
    assert samples.rows == 2500


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("other", "no database 'other', the configuration names 'default', 'gone'"),
        ("gone", "database 'gone': its SQLite file does not exist"),
        ("sqlite:///rows.db", "no database 'sqlite:///rows.db'"),
    ],
)
def test_connections_are_those_that_the_operator_named(
    databases: Mapping[str, str], database: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(databases, "SELECT 1", database=database)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://user:secret@host/db", "expected an sqlite or postgresql URL, got one of 'mysql'"),
        ("postgresql://user:secret@host:port/db", "its URL in the configuration cannot be read"),
        ("postgresql://user:secret@127.0.0.1:1/db", "database 'default'"),
    ],
)
def test_no_message_holds_a_password(url: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load({"default": url}, "SELECT 1")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "  select 1 ; -- done",
        "/* why */ WITH a AS (SELECT ';') SELECT * FROM a;",
        "SELECT ';' AS \"a;b\", 'it''s', $$;$$, $x$ ; $$ $x$, a$b$c FROM t /* ; */",
        "-- one;two\nSELECT 1",
    ],
)
def test_one_select_is_a_statement(query: str) -> None:
    assert check_statement(query) == (query.partition(" ; -- done")[0].removesuffix(";"))


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ; ",
        "; SELECT 1",
        "INSERT INTO t VALUES (1)",
        "PRAGMA query_only = OFF",
        "EXPLAIN SELECT 1",
        "SELECT 1; SELECT 2",
        "SELECT ';'; DELETE FROM t",
        "SELECT '' ; DELETE FROM t --'",
        r"SELECT E'\'' ; COMMIT; DELETE FROM t; --'",
        "SELECT 1 /* /* */ ; DELETE FROM t; /* */ */",
        "SELECT 1 /* ",
        "SELECT 'a",
        "SELECT a$x$ ; DELETE FROM t; SELECT a$x$",
    ],
)
def test_anything_else_is_none(query: str) -> None:
    if query == "SELECT 'a":  # the database says so
        assert check_statement(query) == query
        return
    with pytest.raises(DataError):
        check_statement(query)
