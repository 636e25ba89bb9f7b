"""Opens versions a few at a time, each within a time limit.

A load that hangs must not keep the others waiting for ever: after the limit it has failed and
its place is free. What it opens later is closed at once.
"""

import asyncio
from collections.abc import Awaitable, Callable

from server.errors import LoadFailed
from server.model_config import VersionSource
from server.served import ServedVersion

OpenVersion = Callable[[VersionSource], Awaitable[ServedVersion]]
"""Opens one version without blocking the loop; raises LoadFailed with a reason to act on."""


class OpeningQueue:
    """An `OpenVersion` that bounds another one. Belongs to the event loop."""

    def __init__(self, open_version: OpenVersion, at_once: int, timeout_s: float) -> None:
        self._open, self._timeout_s = open_version, timeout_s
        self._room = asyncio.Semaphore(at_once)
        self._openings: set[asyncio.Future[ServedVersion]] = set()

    async def __call__(self, source: VersionSource) -> ServedVersion:
        """Waits for room, then opens.

        Raises:
            LoadFailed: not open within the time limit.
            Exception: what `open_version` raised.
        """
        async with self._room:
            opening = asyncio.ensure_future(self._open(source))
            self._openings.add(opening)
            opening.add_done_callback(self._openings.discard)
            try:
                done, _ = await asyncio.wait({opening}, timeout=self._timeout_s)
            except asyncio.CancelledError:
                opening.cancel()
                opening.add_done_callback(_discard)
                raise
        if done:
            return opening.result()
        opening.add_done_callback(_discard)
        raise LoadFailed(f"not loaded after {self._timeout_s:g} s, given up")

    async def close(self) -> None:
        """Ends everything under way, what was given up on included."""
        openings = set(self._openings)
        for opening in openings:
            opening.cancel()
        if openings:
            await asyncio.wait(openings)


def _discard(opening: asyncio.Future[ServedVersion]) -> None:
    """Closes a version that opened when nobody waited for it any more."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().retire()
