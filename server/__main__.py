"""The command line: `inflight COMMAND`, or `python -m server COMMAND`.

A command is a module of `server/commands` with `add_parser(subparsers)` and `run(arguments)`,
which returns the exit code. Only the one that is asked for is imported, so that a client command
starts without what the server needs.

Exit codes: 0 it worked, 1 the server refused or could not be reached, 2 wrong usage,
130 interrupted.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from types import ModuleType

COMMANDS = {
    "serve": "serve models over gRPC and HTTP",
    "demo": "train a model, serve it, optimize it under traffic",
    "optimize": "find the fastest form of a model that answers the same",
    "predict": "send a file to a model and print the answer",
    "models": "list the models, describe one, or change which form serves",
    "jobs": "list, show, watch or cancel the optimizations of a server",
    "window": "show or change how a model batches, while it serves",
    "top": "watch the latency of a server's models",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Wrong usage raises SystemExit(2)."""
    words = sys.argv[1:] if argv is None else argv
    chosen = next((word for word in words if not word.startswith("-")), "")
    parser, commands = _parser(chosen)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:  # said by the command, whose usage lists what there is
        commands.get(chosen, parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if arguments.version:
        print(f"inflight {version('inflight')}")
        return 0
    if chosen not in commands:
        parser.print_help(sys.stderr)
        return 2
    return _run(chosen, arguments)


def _parser(
    chosen: str,
) -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser, and those of its commands; only the chosen one's knows its options."""
    parser = argparse.ArgumentParser(
        prog="inflight",
        description="Serves trained models, optimizes them while it serves, and tells where the"
        " time of requests goes.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        if name == chosen:
            _module(name).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser, subparsers.choices


def _run(command: str, arguments: argparse.Namespace) -> int:
    try:
        code: int = _module(command).run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has left (`| head`); the interpreter must not write to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"server.commands.{command}")


if __name__ == "__main__":
    sys.exit(main())
