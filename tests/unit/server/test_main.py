"""The command line's own part: which command, its exit code, and what it must not import."""

import subprocess
import sys

import pytest

from server.__main__ import COMMANDS, main


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: inflight {command}" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown and summary in shown for name, summary in COMMANDS.items())


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: inflight" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["serve", "--prot", "1"], "inflight serve: error: unrecognized arguments: --prot"),
        (["--frobnicate"], "inflight: error: unrecognized arguments: --frobnicate"),
        (["demo", "--seconds", "soon"], "expected seconds above 0, got 'soon'"),
        (["demo", "--clients", "0"], "expected a whole number above 0, got '0'"),
        (["window"], "required: MODEL"),
        (["window", "m", "--max-batch", "x"], "expected a whole number, 0 or more, got 'x'"),
        (["window", "m", "--window-ms", "auto"], "expected a number of ms, got 'auto'"),
        (["predict", "m"], "required: --data"),
        (["predict", "m", "--data", "f", "--batch", "0"], "expected a whole number above 0"),
        (["predict", "m", "--data", "f", "--timeout-s", "0"], "expected seconds above 0, got '0'"),
        (["models", "--url", "http://h:1"], "expected HOST:PORT of the gRPC listener"),
        (["models", "--url", "host"], "expected HOST:PORT of the gRPC listener"),
        (["top", "--interval-s", "0.01"], "expected seconds, at least 0.1"),
        (["top", "--window-s", "7"], "invalid choice: 7"),
    ],
)
def test_wrong_usage(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_the_environment_names_the_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFLIGHT_URL", "nonsense")
    with pytest.raises(SystemExit) as ended:
        main(["models"])
    assert ended.value.code == 2
    assert "got 'nonsense'" in capsys.readouterr().err


def test_nobody_listening_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["models"], ["window", "m"], ["top", "--once"]):
        assert main([*command, "--url", "127.0.0.1:1"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("inflight: cannot reach a server at 127.0.0.1:1: ")


def test_client_commands_import_nothing_of_the_server() -> None:
    code = (
        "import sys; from server.__main__ import main; main(['models', '--url', '127.0.0.1:1']);"
        "sys.exit(any(m in sys.modules for m in ('onnxruntime', 'uvloop', 'server.app')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
