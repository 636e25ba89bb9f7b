"""Keeps libraries from talking too much: on stdout and stderr, and in errors."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drops prints, warnings and log records below CRITICAL; for child processes.

    It changes what the whole process does: nothing else may run beside it. What C++ writes to file
    descriptor 2 is not held back.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    sink = io.StringIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
                yield
    finally:
        logging.disable(before)


def root_cause(error: BaseException) -> str:
    """What went wrong first, on one line: libraries wrap it in advice about themselves."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__
