"""What ends the server: the signals, and what the second one does."""

import asyncio
import logging
import os
import signal

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Set by the first SIGTERM or SIGINT; the second ends the process at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._event = asyncio.Event()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        if self._event.is_set():
            logger.warning("second %s: ending at once", signal.Signals(number).name)
            os._exit(128 + number)
        logger.info("%s: shutting down", signal.Signals(number).name)
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
