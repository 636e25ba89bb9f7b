"""What the tests of `optimizer.stage` run in child processes."""

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

import numpy as np

from optimizer import stage
from optimizer.errors import ConversionError, OptimizationError
from optimizer.passes.contract import PassResult
from protos.tensors import Array

_SLEEPER = [sys.executable, "-c", "import time; time.sleep(1000)"]


class TwoArguments(OptimizationError):
    """Cannot be pickled: its text is not its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def add(first: int, second: int) -> int:
    return first + second


def double(array: Array) -> Array:
    return array * 2


def make_value(folder: Path) -> PassResult:
    return PassResult(folder / "model.onnx", True, ("note",))


def environment(name: str) -> str | None:
    return os.environ.get(name)


def facts() -> dict[str, object]:
    return {
        "cwd": Path.cwd(),
        "path": sys.path,
        "niceness": os.nice(0),
        "policy": os.sched_getscheduler(0),
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text().strip(),
        "session": os.getsid(0) == os.getpid(),
    }


def fds_of_grandchild() -> list[str]:
    code = "import os; print(*sorted(os.listdir('/proc/self/fd')))"
    made = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return made.stdout.decode().split()


def speak() -> None:
    print("one")
    os.write(2, b"two\rthree\n")
    ctypes.CDLL(None).puts(b"four")
    sys.stdout.write("no end of line")


def speak_at_length(lines: int) -> None:
    for number in range(lines):
        print("x" * 1000, number)


def count(to: int) -> None:
    for number in range(to):
        stage.report_progress({"done": number})


def count_on_threads(to: int) -> None:
    threads = [threading.Thread(target=count, args=(to,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_after_progress() -> None:
    stage.report_progress(os.getpid())
    time.sleep(1000)


def block_interpreter() -> None:
    """Never gives the interpreter's lock back, as a library may."""
    stage.report_progress(os.getpid())
    deque(itertools.repeat(None), maxlen=0)


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_after_progress()


def refuse() -> NoReturn:
    raise ConversionError("no such operator: Foo")


def refuse_unpicklably() -> NoReturn:
    raise TwoArguments("this", "that")


def fail() -> NoReturn:
    raise ValueError("expected 3, got 4")


def leave(code: int) -> NoReturn:
    sys.exit(code)


def leave_at_once(code: int) -> NoReturn:
    print("leaving")
    os._exit(code)


def crash(number: int) -> None:
    os.kill(os.getpid(), number)


def crash_natively() -> None:
    ctypes.string_at(0)


def answer_and_crash() -> str:
    class Bomb:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGSEGV)

    sys.bomb = Bomb()  # type: ignore[attr-defined]
    return "fine"


def answer_and_stay() -> str:
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return "fine"


def use_memory(megabytes: int) -> None:
    held = [np.ones(1 << 17) for _ in range(megabytes)]
    stage.report_progress(len(held))
    time.sleep(1000)


def use_memory_in_grandchild(megabytes: int) -> None:
    code = f"held = bytearray({megabytes << 20}); import time; time.sleep(1000)"
    subprocess.run([sys.executable, "-c", code], check=False)


def map_file(path: Path) -> int:
    return int(np.memmap(path, mode="r").max())


def have_children() -> None:
    """In the group, in the session only, and in a session of its own without a parent."""
    code = (
        "import subprocess, sys;"
        f"print(subprocess.Popen({_SLEEPER!r}, start_new_session=True, stdout=2).pid)"
    )
    made = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    stage.report_progress([*have_children_and_return(), int(made.stdout)])
    time.sleep(1000)


def have_children_and_return() -> list[int]:
    return [subprocess.Popen(_SLEEPER).pid, subprocess.Popen(_SLEEPER, process_group=0).pid]


def return_foreign() -> Fraction:
    return Fraction(1, 3)


def return_lock() -> object:
    return threading.Lock()


def take(value: object) -> str:
    return type(value).__name__


def relay(function_name: str) -> None:
    """Runs a stage and prints what it reports: what the server is, in the tests of its death."""
    stage.run(globals()[function_name], on_progress=lambda value: print(value, flush=True))
