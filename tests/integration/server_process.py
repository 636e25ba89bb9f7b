"""A real server process for tests of the client and the command line."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def write_models(repository: Path, files: Mapping[str, bytes]) -> None:
    """Puts files into a repository: "mlp/1/model.onnx" -> content."""
    for name, content in files.items():
        path = repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """Serves `folder`/models until left, and checks that the server then ends well.

    Nothing is optimized at load unless `options` say so.
    """
    with starting(folder, *options) as (process, address):
        yield address
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@contextmanager
def starting(folder: Path, *options: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """As `serving`, for a test that ends the process itself; one that still runs is killed."""
    command = [sys.executable, "-m", "server", "serve", str(folder / "models"), "--optimize=off"]
    ports = ["--grpc-port=0", "--http-port=0", f"--state-dir={folder / 'state'}"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [*command, *ports, *options], stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready.startswith("inflight ready"), (folder / "log").read_text()
            yield process, ready.split("grpc=")[1].split()[0]
        finally:
            if process.poll() is None:
                process.kill()
