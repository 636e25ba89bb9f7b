"""Rows from a real PostgreSQL server, started for the test where its programs are installed."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from optimizer.data import DataSpec, read
from optimizer.errors import DataError
from optimizer.samples import Samples
from protos.signature import Signature, TensorSpec

pytestmark = pytest.mark.slow

FEATURES = Signature((TensorSpec("X", "FP32", ("batch", 2)),), ())
_BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/none"))


def run(*command: object, user: str | None) -> None:
    subprocess.run(
        [str(part) for part in command],
        check=True,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        stdout=subprocess.DEVNULL,
        cwd="/",
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of its own that listens on a socket in its folder and on no port."""
    if not (_BIN / "initdb").exists():
        pytest.skip("PostgreSQL is not installed")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path has to be short
    try:
        if user:
            shutil.chown(folder, user, user)
        data, password = folder / "data", folder / "password"
        password.write_text("s3cret\n")
        if user:
            shutil.chown(password, user, user)
        run(_BIN / "initdb", "-D", data, "-U", "tester", "-A", "scram-sha-256",
            f"--pwfile={password}", "--no-sync", user=user)  # fmt: skip
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        control = (_BIN / "pg_ctl", "-D", data, "-w")
        run(*control, "-o", options, "-l", folder / "log", "start", user=user)
        try:
            yield f"postgresql://tester:s3cret@/postgres?host={folder}"
        finally:
            run(*control, "-m", "immediate", "stop", user=user)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def filled(url: str) -> str:
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (a numeric, b int, label text, pair float4[])")
        connection.execute(
            "INSERT INTO t SELECT i / 2.0, i, 'k' || i % 2, ARRAY[i, i]"
            " FROM generate_series(0, 29) i"
        )
    return url


def load(url: str, query: str, **more: object) -> Samples:
    spec = DataSpec("sql", query=query, **more)  # type: ignore[arg-type]
    return read(spec, FEATURES, {"default": url})


def test_a_query_gives_rows(filled: str) -> None:
    samples = load(filled, "SELECT a, b, label FROM t WHERE label LIKE 'k%' ORDER BY b")
    assert samples.inputs["X"][:2].tolist() == [[0, 0], [0.5, 1]]
    assert samples.labels is not None
    assert samples.labels[:2].tolist() == [b"k0", b"k1"]
    assert load(filled, "SELECT pair FROM t ORDER BY b").inputs["X"][3].tolist() == [3, 3]


def test_the_other_spelling_of_the_scheme_is_understood(filled: str) -> None:
    assert load(filled.replace("postgresql:", "postgres:"), "SELECT a, b FROM t").rows == 30


def test_rows_beyond_the_limit_are_not_fetched(filled: str) -> None:
    query = "SELECT t.a, t.b FROM t, t u, t v, t w, t x, t y, t z"  # 2e10 rows
    samples = load(filled, query, row_limit=2500, timeout_s=20)
    assert samples.rows == 2500
    assert "cut off after 2,500 rows" in samples.origin


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("WITH x AS (DELETE FROM t RETURNING a, b) SELECT * FROM x", "."),
        ("SELECT a, b INTO u FROM t", "."),
        ("SELECT set_config('transaction_read_only', 'off', true), b FROM t", "read-write mode"),
        ("SELECT nextval('s'), b FROM t", "."),
        ("SELECT x FROM t", 'column "x" does not exist'),
        ("SELECT a, b FROM t FOR UPDATE", "read-only transaction"),
    ],
)
def test_nothing_but_reading_is_done(filled: str, query: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(filled, query)
    assert load(filled, "SELECT a, b FROM t").rows == 30


def test_the_server_ends_a_query_that_takes_too_long(filled: str) -> None:
    with pytest.raises(DataError, match=r"the query took longer than 0.1 s"):
        load(filled, "SELECT pg_sleep(60), 1 AS b", timeout_s=0.1)


def test_a_refused_password_is_not_shown(filled: str) -> None:
    with pytest.raises(DataError, match="password authentication failed") as caught:
        load(filled.replace("s3cret", "wr0ng"), "SELECT 1")
    assert "wr0ng" not in str(caught.value)
