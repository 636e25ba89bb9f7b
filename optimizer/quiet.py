"""Keeps libraries from talking where nobody asked them."""

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
