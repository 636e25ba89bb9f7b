"""Looks at the instances of every open version, so that a run that hangs is noticed."""

import asyncio

from server.served import ServedVersion

_INTERVAL_S = 1.0


class Heartbeat:
    """Follows versions from their opening to their closing. Belongs to the event loop.

    One that was replaced or unloaded is followed too, while it answers its last requests.
    """

    def __init__(self, hang_timeout_s: float) -> None:
        self._hang_timeout_s = hang_timeout_s
        self._open: set[ServedVersion] = set()

    async def follow(self, served: ServedVersion) -> None:
        """Has a version looked at; returns when it has closed."""
        self._open.add(served)
        try:
            await served.closed()
        finally:
            self._open.discard(served)

    def beat(self) -> None:
        """Replaces every instance whose batch runs for too long, and fails its requests."""
        for served in list(self._open):
            served.check(self._hang_timeout_s)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            self.beat()
