"""One instance of a loaded model: a thread that runs one batch at a time. The only threads here.

The thread starts with the first batch and ends after a minute without one, so a thousand idle
models cost no threads. It sleeps on a queue; it never polls.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

logger = logging.getLogger(__name__)

IDLE_END_S = 60.0  # a thread without work ends after this long

Work = Callable[[], None]
Done = Callable[[BaseException | None], None]
"""Called on the loop when the work has returned (None) or has broken its thread."""


class Instance:
    """Runs work on a thread of its own. All methods belong to the event loop.

    `run` gives it one piece of work at a time. Work is not expected to raise: if it does, the
    thread is considered broken, ends, and the next work gets a new one.
    """

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.threads = threads  # compute threads a run uses
        self.is_busy = False
        self._loop = asyncio.get_running_loop()
        self._inbox: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended: Callable[[], None] | None = None  # set once the work was given up on

    @property
    def thread_id(self) -> int:
        """Of the thread that runs the work under way; 0 where there is none."""
        return (self._thread.ident or 0) if self._thread is not None else 0

    def run(self, work: Work, done: Done) -> None:
        """Starts the work; `done` is called on the loop afterwards. Must not be busy."""
        self.is_busy = True
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the machine, or the container, has no more
                logger.error("instance %s: %s", self.name, error)
                self._loop.call_soon(self._finished, done, error)
                return
            self._thread = thread
        self._inbox.put((work, done))

    def abandon(self, ended: Callable[[], None]) -> None:
        """Gives up on work that hangs: its `done` will not be called, whatever it does.

        `ended` is called on the loop instead, if the work returns after all.
        """
        self._ended = ended
        self._inbox.put(None)

    def close(self) -> None:
        """Ends the thread once it has finished what it does."""
        self._inbox.put(None)

    def _finished(self, done: Done, error: BaseException | None) -> None:
        if self._ended is not None:
            self._ended()
            return
        self.is_busy = False
        done(error)

    def _serve(self) -> None:
        while True:
            try:
                item = self._inbox.get(timeout=IDLE_END_S)
            except Empty:
                if not self._retire():
                    continue
                return
            if item is None:
                return
            goes_on = self._work(*item)
            del item  # while it sleeps, a thread must not keep the tensors of its last batch
            if not goes_on:
                return

    def _retire(self) -> bool:
        """Asks the loop for leave to end: only it knows that no work is on its way."""
        leave: SimpleQueue[bool] = SimpleQueue()

        def decide() -> None:
            if not self.is_busy:
                self._thread = None
            leave.put(not self.is_busy)

        try:
            self._loop.call_soon_threadsafe(decide)
        except RuntimeError:  # the loop has closed
            return True
        return leave.get()

    def _work(self, work: Work, done: Done) -> bool:
        """Runs one piece of work; False when the thread must end."""
        error: BaseException | None = None
        try:
            work()
        except BaseException as raised:
            logger.exception("instance %s broke", self.name)
            error = raised
        try:
            if error is not None:
                self._loop.call_soon_threadsafe(self._broken)
            self._loop.call_soon_threadsafe(self._finished, done, error)
        except RuntimeError:  # the loop has closed: nobody waits any more
            return False
        return error is None

    def _broken(self) -> None:
        self._thread = None
