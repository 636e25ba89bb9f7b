"""How the client commands reach a server, and what they say when it does not answer."""

import argparse
import os
import re
import sys
from collections.abc import Callable

import grpc

from client import Client, InferenceError

_DEFAULT = "127.0.0.1:8001"
_ADDRESS = re.compile(r"(unix:.+|[^/]+:\d+)")
_UNREACHABLE = re.compile(
    "failed to connect|resolving|DNS resolution", re.IGNORECASE
)  # gRPC's words


class CommandError(Exception):
    """A command cannot go on: one line for the user, and its exit code."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        type=_address,
        default=os.environ.get("INFLIGHT_URL", _DEFAULT),
        metavar="HOST:PORT",
        help=f"the server's gRPC listener (default: {_DEFAULT}; environment: INFLIGHT_URL)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="the model's name")
    parser.add_argument(
        "--version",
        type=positive,
        default=None,
        metavar="N",
        dest="model_version",
        help="this version (default: the one the server chooses)",
    )


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def whole(text: str) -> int:
    """A whole number, 0 or more, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """A length of time above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return value


def duration_ms(text: str) -> float:
    """A number of milliseconds, for argparse; the server knows which it takes."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of ms, got {text!r}") from None


def ask(url: str, question: Callable[[Client], None], timeout_s: float = 30.0) -> int:
    """Puts a question to a server and returns the command's exit code; failures go to stderr.

    `timeout_s` is for each call the question makes.
    """
    try:
        with Client(url, timeout_s=timeout_s) as client:
            question(client)
    except (InferenceError, CommandError) as error:
        return fail(error, url)
    return 0


def fail(error: InferenceError | CommandError, url: str) -> int:
    """Prints the one line of a failure and returns its exit code."""
    if isinstance(error, CommandError):
        print(f"inflight: {error}", file=sys.stderr)
        return error.exit_code
    print(f"inflight: {_explained(error, url)}", file=sys.stderr)
    return 1


def _explained(error: InferenceError, url: str) -> str:
    if _UNREACHABLE.search(error.message):
        reason = error.message.rpartition(":")[2].strip(" ]").lower()
        if "http1.x server" in error.message:  # gRPC's words for an answer in HTTP/1
            reason = "what listens there is HTTP, not gRPC"
        return f"cannot reach a server at {url}: {reason} (--url or INFLIGHT_URL name another)"
    if error.message == "Deadline Exceeded":  # gRPC's words where the server said nothing
        return f"DEADLINE_EXCEEDED: the server at {url} did not answer in time"
    if error.code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{error} (is it an Inflight server's gRPC listener at {url}?)"
    return str(error)


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"expected HOST:PORT of the gRPC listener, as in {_DEFAULT}, got {text!r}"
        )
    return text
