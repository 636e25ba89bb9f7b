"""Says which extra to install when a framework is missing."""

import contextlib
from collections.abc import Iterator

from optimizer.errors import Unavailable

_EXTRAS = {
    "onnx": "sklearn",  # brings it beside whichever ONNX Runtime there is
    "onnxruntime": "cpu",
    "sklearn": "sklearn",
    "tensorflow": "tensorflow",
}


@contextlib.contextmanager
def needed_by(what: str, framework: str) -> Iterator[None]:
    """Turns a missing library into `Unavailable` with the extra that brings the framework."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("optimizer", "protos"):
            raise
        install = f"pip install 'inflight[{_EXTRAS.get(framework, 'convert')}]'"
        message = f"{what} needs {error.name}, which is not installed: {install}"
        raise Unavailable(message) from None
