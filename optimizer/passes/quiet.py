"""Silence for libraries that print, log and warn at every node."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

_ERRORS_ONLY, _WARNINGS = 3, 2  # ONNX Runtime's severities; 2 is its default


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Nothing inside is heard; exceptions pass. For child processes: changes the whole process."""
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    nowhere = io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            _quiet_runtime(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        # ONNX Runtime's quantizer calls logging.basicConfig when it is imported.
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)


@contextlib.contextmanager
def _quiet_runtime() -> Iterator[None]:
    """Its C++ code writes to the file descriptor, past Python's redirection."""
    runtime = sys.modules.get("onnxruntime")
    if runtime is None:
        yield
        return
    runtime.set_default_logger_severity(_ERRORS_ONLY)
    try:
        yield
    finally:
        runtime.set_default_logger_severity(_WARNINGS)
