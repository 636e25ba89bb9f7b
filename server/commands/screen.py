"""Where a live command draws: a whole terminal with its keys, or plain text, frame after frame."""

import asyncio
import shutil
import signal
import termios
import tty
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_ENTER = "\x1b[?1049h\x1b[?25l"  # another screen, no cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen:
    """Plain text: every frame is printed below the one before. Nobody can leave it by a key."""

    is_live = False  # a frame takes the place of the one before

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._left = asyncio.Event()

    @property
    def is_left(self) -> bool:
        return self._left.is_set()

    async def left(self) -> None:
        """Waits until the user wants to leave."""
        await self._left.wait()

    def leave(self) -> None:
        self._left.set()

    def show(self, frame: str) -> None:
        self.add(frame + "\n")

    def add(self, lines: str) -> None:
        """Goes on where the lines before end, without the space that frames have between them."""
        self._out.write(lines + "\n")
        self._out.flush()


class TerminalScreen(Screen):
    """Every frame takes the place of the one before, cut to the terminal's size."""

    is_live = True

    def __init__(self, out: TextIO, title: str) -> None:
        super().__init__(out)
        self._title = title

    def show(self, frame: str) -> None:
        columns, rows = shutil.get_terminal_size()
        lines = [self._title, "", *frame.splitlines()][:rows]
        # Lines are overwritten in place: clearing the screen first would flicker.
        text = "\r\n".join(line[:columns] + _END_OF_LINE for line in lines)
        self._out.write(_HOME + text + _END_OF_SCREEN)
        self._out.flush()


async def until_left(drawing: Coroutine[Any, Any, None], screen: Screen) -> None:
    """Draws until there is nothing more to draw or the user has enough."""
    draw, leave = asyncio.ensure_future(drawing), asyncio.ensure_future(screen.left())
    try:
        await asyncio.wait((draw, leave), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leave.cancel()
        draw.cancel()
    if not screen.is_left:
        await draw


@contextmanager
def open_screen(out: TextIO, keys: TextIO, title: str) -> Iterator[Screen]:
    """A screen on `out`, left by "q" on `keys` or SIGTERM; restores the terminal in any case.

    Call it inside a running event loop.
    """
    if not out.isatty():
        yield Screen(out)
        return
    screen = TerminalScreen(out, title)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, screen.leave)
    out.write(_ENTER)
    try:
        with _single_keys(keys, screen):
            yield screen
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        out.write(_LEAVE)
        out.flush()


@contextmanager
def _single_keys(keys: TextIO, screen: Screen) -> Iterator[None]:
    """Hands over keys as they are pressed, without Enter and without showing them."""
    if not keys.isatty():
        yield
        return
    descriptor = keys.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def pressed() -> None:
        if keys.read(1) in ("q", "Q", ""):
            screen.leave()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, pressed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
