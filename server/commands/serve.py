"""`inflight serve`: the server, from its options to its exit code."""

import argparse
import asyncio
import gc
import logging
import sys
from typing import Any

import uvloop

from server.allocator import keep_large_blocks
from server.app import Addresses, App
from server.repository import Repository, RepositoryError
from server.settings import ServeSettings, SettingsError, add_serve_options, read_settings
from server.stop_signal import StopSignal

logger = logging.getLogger(__name__)

USAGE_ERROR = 2
SWITCH_INTERVAL_S = 0.0005
"""How long a thread waits for Python's lock before it is handed over. With the default of 5 ms,
loading beside a busy event loop takes ten times as long; throughput is the same."""


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    parser = subparsers.add_parser(
        "serve",
        help="serve models over gRPC and HTTP",
        description="Serves model files, model folders and repositories until SIGTERM.",
    )
    add_serve_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serves until told to stop. 0: drained; 2: the options or a path cannot be used."""
    try:
        settings = read_settings(vars(arguments))
        _log_to_stderr(settings.log_level)
        if not settings.models and settings.load_control != "explicit":
            logger.warning("no model or repository was given: there is nothing to serve")
        repository = Repository(settings.models, settings.allow_pickle)
        keep_large_blocks()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        uvloop.run(_serve(settings, repository))
    except (SettingsError, RepositoryError) as error:
        print(f"inflight serve: {error}", file=sys.stderr)
        return USAGE_ERROR
    return 0


async def _serve(settings: ServeSettings, repository: Repository) -> None:
    stop = StopSignal(asyncio.get_running_loop())
    app = App(settings, repository)
    start = asyncio.ensure_future(app.start())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({start, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if start.done():
        _spare_the_collector()
        _announce(start.result(), app)
        await stopped
    else:
        start.cancel()
    await app.stop()


def _spare_the_collector() -> None:
    """Takes what the server is made of out of garbage collection.

    A full pass over its 60,000 objects takes 25 ms, in which nobody is answered.
    """
    gc.collect()
    gc.freeze()


def _announce(addresses: Addresses, app: App) -> None:
    ready, failed = app.counts()
    print(
        f"inflight ready grpc={addresses.grpc} http={addresses.http} models={ready}"
        f" failed={failed}",
        flush=True,
    )


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
