import logging
import sys
import warnings

import pytest

from optimizer.passes.quiet import quietly


def test_nothing_is_heard_and_everything_is_as_before(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    handlers = list(logging.getLogger().handlers)
    with quietly():
        print("printed")
        print("printed", file=sys.stderr)
        warnings.warn("warned", stacklevel=1)
        logging.getLogger("library").critical("logged")
        logging.basicConfig(level=logging.DEBUG, force=False)
        logging.getLogger().addHandler(logging.NullHandler())
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert logging.getLogger().handlers == handlers
    logging.getLogger("library").error("heard")
    assert [record.message for record in caplog.records] == ["heard"]


def test_exceptions_pass() -> None:
    with pytest.raises(KeyError), quietly():
        raise KeyError("seen")
