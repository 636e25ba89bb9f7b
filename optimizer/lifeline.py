"""Ends a child process, and all that it started, when the process that started it is gone."""

import fcntl
import os
import select
import signal

_F_SETSIG = 10  # of Linux; the standard library does not name it


def die_with(life_fd: int) -> None:
    """Has the kernel kill this whole group when the parent, which holds the other end, is gone.

    `life_fd` is the end of a pipe that is read, and nothing is ever written to. Unlike
    PR_SET_PDEATHSIG this does not depend on the thread that started us, and takes our own
    children along; unlike a thread that waits for the end of the pipe it does not need the
    interpreter's lock, which a library may hold for long.
    """
    fcntl.fcntl(life_fd, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(life_fd, _F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(life_fd, fcntl.F_GETFL)
    fcntl.fcntl(life_fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([life_fd], [], [], 0)[0]:  # gone already
        os.killpg(0, signal.SIGKILL)
