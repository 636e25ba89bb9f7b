"""The HTTP listener: opens the port, serves an application, finishes what was accepted."""

import os

from aiohttp import web

from server.settings import SettingsError


class HttpListener:
    """Serves one application on one address. Event loop only; installs no signal handlers.

    A caller that leaves cancels its request, as over gRPC.
    """

    def __init__(self, app: web.Application, drain_s: float) -> None:
        """`drain_s`: how long `stop` waits for requests under way before it cancels them."""
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,
            shutdown_timeout=drain_s,
        )

    async def start(self, host: str, port: int) -> int:
        """Listens (port 0: on a free one) and returns the port's number.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise SettingsError(
                f"cannot listen on {shown} for HTTP: {_reason(error)} (--http-port, --host)"
            ) from None
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Accepts no more connections; returns when the requests under way have ended."""
        await self._runner.cleanup()


def _reason(error: OSError) -> str:
    """The system's words without the event loop's; an unknown host name has a code of its own."""
    number = error.errno or 0
    return os.strerror(number) if number > 0 else str(error.strerror or error)
