"""The client commands against a server process, as a person would type them."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from client import Client
from server.__main__ import main
from tests import models
from tests.integration.server_process import serving, write_models

Run = Callable[..., tuple[int, str, str]]  # words -> exit code, stdout, stderr


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    files = {
        "mlp/1/model.onnx": models.mlp(),
        "text/1/model.onnx": models.identity("BYTES"),
        "alone/1/model.onnx": models.softmax_over_batch(),
        "sick/1/model.onnx": b"not a model",
    }
    write_models(folder / "models", files)
    with serving(folder) as address:
        yield address


@pytest.fixture
def run(address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, with the server's address in the environment."""
    monkeypatch.setenv("INFLIGHT_URL", address)

    def command(*words: str | Path) -> tuple[int, str, str]:
        code = main([*map(str, words)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


def test_predict_prints_json(run: Run, address: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(3, 16))
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    code, out, err = run("predict", "mlp", "--data", tmp_path / "x.csv")
    assert (code, err) == (0, "")
    with Client(address) as client:
        y = client.predict("mlp", {"x": x.astype(np.float32)})["y"]
    np.testing.assert_allclose(json.loads(out)["y"], y, rtol=1e-5, atol=1e-6)


def test_predict_sends_large_files_in_parts_and_stores_the_answer(
    run: Run, address: str, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).normal(size=(5000, 16)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    output = tmp_path / "y.npz"
    done = run("predict", "mlp", "--data", tmp_path / "x.npz", "--output", output, "--batch", 999)
    assert done == (0, "", "")
    with Client(address) as client:
        y = client.predict("mlp", {"x": x})["y"]
    with np.load(output) as stored:
        np.testing.assert_allclose(stored["y"], y, rtol=1e-4, atol=1e-5)


def test_predict_sends_rows_that_depend_on_each_other_together(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([[0.0] * 4] * 4))
    code, out, _ = run("models", "alone", "--json")
    (shape,) = [tensor["shape"] for tensor in json.loads(out)[0]["versions"][0]["inputs"]]
    (tmp_path / "x.json").write_text(json.dumps([[0.0] * shape[1]] * 4))
    code, out, _ = run("predict", "alone", "--data", tmp_path / "x.json")
    assert code == 0
    np.testing.assert_allclose(json.loads(out)["y"], np.full((4, shape[1]), 0.25))


def test_predict_stores_texts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('["a", "b", "c", "grün"]\n')
    output = tmp_path / "y.npz"
    assert run("predict", "text", "--data", tmp_path / "x.jsonl", "--output", output)[0] == 0
    with np.load(output) as stored:
        assert stored["y"].tolist() == [[b"a", b"b", b"c", "grün".encode()]]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("predict", "nope"), 1, "NOT_FOUND: Request for unknown model: 'nope' is not found"),
        (("predict", "sick"), 1, "model 'sick' is not ready: version 1: "),
        (("predict", "text"), 1, "INVALID_ARGUMENT: "),
        (("predict", "mlp", "--outputs", "z"), 1, "INVALID_ARGUMENT: "),
        (("predict", "mlp", "--version", "9"), 1, "'mlp' version 9 is not found"),
        (("predict", "mlp", "--output", "y.txt"), 2, "expected a name that ends in .npz"),
        (("predict", "mlp", "--output", "/nowhere/y.npz"), 2, "there is no folder '/nowhere'"),
    ],
)
def test_predict_says_what_is_wrong(
    run: Run, tmp_path: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 16)))
    done, out, err = run(*words, "--data", tmp_path / "x.npy")
    assert (done, out) == (code, "")
    assert len(err.splitlines()) == 1
    assert text in err


def test_models_lists_and_describes(run: Run) -> None:
    code, out, _ = run("models")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "ready" in lines["mlp"]
    assert "influence" in lines["alone"]
    assert "unavailable" in lines["sick"]
    code, out, _ = run("models", "mlp")
    assert code == 0
    assert "input     x FP32[n, 16]" in out


def test_models_as_json(run: Run) -> None:
    code, out, _ = run("models", "--json")
    states = {model["model"]: model["state"] for model in json.loads(out)}
    assert code == 0
    assert (states["mlp"], states["sick"]) == ("ready", "unavailable")


def test_an_unknown_model_cannot_be_described(run: Run) -> None:
    assert run("models", "nope") == (
        1,
        "",
        "inflight: NOT_FOUND: Request for unknown model: 'nope' is not found\n",
    )


def test_window_shows_and_changes(run: Run) -> None:
    assert "window          none" in run("window", "text")[1]
    code, out, err = run(
        *("window", "text", "--window-ms", "1.5", "--queue-limit", "7", "--slo-p99-ms", "20")
    )
    assert (code, err) == (0, "")
    assert "queue limit" in out
    shown = run("window", "text")[1]
    assert "window          1.5 ms" in shown
    assert "queue limit     7" in shown
    assert "target p99      20 ms" in shown
    assert "nothing changed" in run("window", "text", "--window-ms", "1.5")[1]


def test_window_says_where_batching_is_off(run: Run) -> None:
    code, out, _ = run("window", "alone", "--window-ms", "1")
    assert code == 0
    assert "batching is off, requests run one by one: rows of a batch influence" in out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("text", "--window-ms", "-1"), "window_ms: expected 0 to 60000 milliseconds, got -1"),
        (("text", "--max-batch", "0"), "max_batch: expected 1 to"),
        (("alone", "--max-batch", "4"), "max_batch: expected 1 since requests"),
    ],
)
def test_window_says_what_cannot_be_set(run: Run, words: tuple[str, ...], text: str) -> None:
    code, out, err = run("window", *words)
    assert (code, out) == (1, "")
    assert text in err


def test_top_once_is_one_table(run: Run) -> None:
    code, out, err = run("top", "--once")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["MODEL", "alone", "mlp", "text"]


def test_top_in_a_pipe_is_plain_text(address: str) -> None:
    command = [sys.executable, "-m", "server", "top", "--url", address, "--interval-s", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = "".join(process.stdout.readline() for _ in range(10))
        process.stdout.close()  # as `| head` does
        assert process.wait(60) == 1
    assert text.count("MODEL") == 2
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "leave",
    [pytest.param(b"q", id="q"), pytest.param(b"\x03", id="Ctrl-C")],
)
def test_top_in_a_terminal_is_left_by_a_key_and_restores_it(address: str, leave: bytes) -> None:
    # The child makes its stdin its controlling terminal, so that Ctrl-C reaches it.
    code = (
        "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "from server.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "top", "--url", address, "--interval-s", "0.1"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        while b"MODEL" not in shown:
            shown += os.read(ours, 65536)
        os.write(ours, leave)
        shown += _rest(ours)
        assert process.wait(60) == 0
    os.close(ours)
    assert shown.startswith(b"\x1b[?1049h")
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")


def _rest(terminal: int) -> bytes:
    """Everything until the other side closes the terminal."""
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other side has closed
            return shown
        if not part:
            return shown
        shown += part
