"""The child process of a stage: `python -m optimizer.stage_child`, started by `stage.run` only."""

import contextlib
import ctypes
import faulthandler
import importlib
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from optimizer import lifeline, stage
from optimizer.errors import OptimizationError, StageFailed
from optimizer.stage_channel import Kind, Sender

_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    call_fd, results_fd, life_fd = (int(text) for text in sys.argv[1:4])
    for fd in (call_fd, results_fd, life_fd):
        os.set_inheritable(fd, False)
    lifeline.die_with(life_fd)
    sys.argv[1:] = []
    faulthandler.enable()
    sender = stage.connect(Sender(results_fd))
    with open(call_fd, "rb") as call:
        given: stage.Given = pickle.load(call)
        _yield_to_others(given)
        sys.path[:] = given.sys_path
        _answer(given, call, sender)


def _yield_to_others(given: stage.Given) -> None:
    """Lets the server go first, for the CPU and when memory runs out."""
    # Children that their parent left would otherwise go to init, and be out of sight.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        os.nice(given.niceness)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, given.policy, os.sched_param(0))
    # Where the kernel groups processes by session, niceness counts within a group only.
    for file, value in (("oom_score_adj", 1000), ("autogroup", given.niceness)):
        with contextlib.suppress(OSError):
            Path("/proc/self", file).write_text(str(value))


def _answer(given: stage.Given, call: BinaryIO, sender: Sender) -> None:
    """Calls the function and sends what becomes of it."""
    try:
        result = _call(given, call)
    except BaseException as error:
        traceback.print_exception(error)
        _send_error(error, sender)
    else:
        _send_result(result, sender)


def _call(given: stage.Given, call: BinaryIO) -> Any:
    function: Any = importlib.import_module(given.module)
    for name in given.qualname.split("."):
        function = getattr(function, name)
    return function(*_arguments(call))


def _arguments(call: BinaryIO) -> tuple[Any, ...]:
    try:
        return tuple(pickle.load(call))
    except AttributeError as error:
        raise StageFailed(
            "what is given to a stage has to be defined in a module, not in the script that "
            f"runs: {error}"
        ) from error


def _send_result(result: object, sender: Sender) -> None:
    try:
        sender.send(Kind.RESULT, result)
    except Exception as error:
        sender.send(Kind.FAILED, f"its result, a {type(result).__name__}, cannot be sent: {error}")


def _send_error(error: BaseException, sender: Sender) -> None:
    if isinstance(error, OptimizationError) and _survives_pickling(error):
        sender.send(Kind.RAISED, error)
    else:
        sender.send(Kind.FAILED, f"{type(error).__name__}: {error}")


def _survives_pickling(error: Exception) -> bool:
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)
    except Exception:
        return False


if __name__ == "__main__":
    main()
