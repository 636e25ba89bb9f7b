"""What an operator can set on `serve`: every option once, and the one reader of the environment.

A value comes from the flag, else `INFLIGHT_<NAME>`, else the `--config` file (TOML), else the
default. `load_settings` is a pure function of those four; `read_settings` fetches them.
Per-model settings are not here: they live with the model (`model_config.py`).
"""

import argparse
import difflib
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any


class SettingsError(Exception):
    """An option has a value that cannot be used. The message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one option's values are read: `parse` raises ValueError on anything but `expects`."""

    parse: Callable[[Any], Any]
    expects: str
    placeholder: str = ""  # how --help writes the value
    is_secret: bool = False  # what was given is not shown in messages


def _integer(low: int, high: int, expects: str) -> _Kind:
    def parse(value: Any) -> int:
        if isinstance(value, bool | float):
            raise ValueError
        number = int(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return _Kind(parse, expects, "N")


def _number(low: float, high: float, expects: str, *, above: bool = False) -> _Kind:
    """A float in [low, high]; with `above`, in (low, high]."""

    def parse(value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if not low <= number <= high or (above and number == low):
            raise ValueError
        return number

    return _Kind(parse, expects, "X")


def _one_of(*choices: str) -> _Kind:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return _Kind(parse, f"one of {', '.join(choices)}", "|".join(choices))


def _parse_switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    try:
        return words[str(value).lower()]
    except KeyError:
        raise ValueError from None


def _parse_text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _parse_path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError
    try:
        return Path(value).expanduser()
    except RuntimeError:  # "~name" of nobody
        raise ValueError from None


def _parse_paths(value: Any) -> tuple[Path, ...]:
    """A list from the command line or the file; from the environment separated as PATH is."""
    parts = value.split(os.pathsep) if isinstance(value, str) else value
    if not isinstance(parts, Iterable):
        raise ValueError
    return tuple(_parse_path(part) for part in parts)


def _parse_databases(value: Any) -> dict[str, str]:
    """A table from the file; from the environment "name=url" separated by white space."""
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split()]
        value = {name: url for name, _, url in pairs}
    if not isinstance(value, Mapping):
        raise ValueError
    return {_parse_text(name): _parse_text(url) for name, url in value.items()}


_PORT = _integer(0, 65535, "a port number from 0 to 65535")
_SECONDS = _number(0, math.inf, "a number of seconds, 0 or more")
_SECONDS_ABOVE_0 = _number(0, math.inf, "a number of seconds above 0", above=True)
_SWITCH = _Kind(_parse_switch, "true or false")
_TEXT = _Kind(_parse_text, "a text that is not empty", "TEXT")
_PATH = _Kind(_parse_path, "a path", "PATH")
_PATHS = _Kind(_parse_paths, "a list of paths", f"PATH{os.pathsep}...")
_DATABASES = _Kind(
    _parse_databases, "a table of connection URLs by name", "NAME=URL", is_secret=True
)


def available_cores() -> int:
    """Cores this process may use: its affinity mask and, in a container, its CPU quota."""
    try:
        quota = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii")
    except OSError:
        quota = "max"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, cores_of_quota(quota))


def cores_of_quota(cpu_max: str) -> int:
    """Whole cores of a cgroup v2 `cpu.max` ("quota period" in microseconds), rounded up."""
    quota, _, period = cpu_max.strip().partition(" ")
    if quota == "max" or not period:
        return 2**31
    return max(1, math.ceil(int(quota) / int(period)))


def _option(
    default: Any, kind: _Kind, meaning: str, *, variable: str = "", shown_default: str = ""
) -> Any:
    """A field of `ServeSettings`; one with a `variable` of its own has no flag."""
    notes = {"kind": kind, "meaning": meaning, "variable": variable, "shown": shown_default}
    if callable(default):
        return field(default_factory=default, metadata=notes, repr=not kind.is_secret)
    return field(default=default, metadata=notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Everything `serve` can be told, checked. Durations are float seconds.

    Raises:
        SettingsError: a field's value is not what its option expects; names field and value.
    """

    models: tuple[Path, ...] = _option((), _PATHS, "model files, model folders or repositories")
    host: str = _option("127.0.0.1", _TEXT, "address of both listeners")
    grpc_port: int = _option(8001, _PORT, "port of gRPC; 0 picks a free one")
    http_port: int = _option(8000, _PORT, "port of HTTP; 0 picks a free one")
    state_dir: Path = _option(
        lambda: Path("~/.local/state/inflight").expanduser(),
        _PATH,
        "artifacts and job records; safe to delete while stopped",
        shown_default="~/.local/state/inflight",
    )
    optimize: str = _option(
        "auto",
        _one_of("auto", "off"),
        "whether models are optimized while they serve; with off, only those asked for by request",
    )
    artifact_limit_mb: int = _option(
        10240,
        _integer(1, 2**40, "whole mebibytes, 1 or more"),
        "most that stored artifacts may take, in mebibytes; those unused for longest go first",
    )
    data_folders: tuple[Path, ...] = _option(
        (),
        _PATHS,
        "folders, besides the repositories, in which a request may name files of validation data",
        shown_default="none",
    )
    databases: Mapping[str, str] = _option(
        dict,
        _DATABASES,
        "connections that validation data may be read from, NAME=URL separated by spaces; in the"
        " file a table [databases]",
        variable="INFLIGHT_DATABASES",
        shown_default="none",
    )
    load_control: str = _option(
        "all",
        _one_of("all", "explicit", "poll"),
        "load every model at start, only by RPC, or follow changes in the repository",
    )
    poll_interval_s: float = _option(
        15.0, _SECONDS_ABOVE_0, "seconds between two looks at the repository (load control poll)"
    )
    max_message_mb: int = _option(
        256,
        _integer(1, 2047, "whole mebibytes from 1 to 2047"),
        "largest request, over gRPC or HTTP, in mebibytes",
    )
    lame_duck_s: float = _option(
        0.0, _SECONDS, "seconds after SIGTERM of accepting calls while health says NOT_SERVING"
    )
    drain_s: float = _option(30.0, _SECONDS, "longest time in seconds to finish accepted requests")
    threads: int = _option(
        available_cores,
        _integer(1, 4096, "a number of threads from 1 to 4096"),
        "compute threads the server plans with, all models together",
        shown_default="the cores it may use",
    )
    hang_timeout_s: float = _option(
        60.0, _SECONDS_ABOVE_0, "an instance whose run takes longer, in seconds, is replaced"
    )
    allow_pickle: bool = _option(
        False, _SWITCH, "open pickle and joblib files, which can run any code"
    )
    reflection: bool = _option(True, _SWITCH, "answer gRPC server reflection")
    metrics_compat: str = _option(
        "none", _one_of("none", "triton"), "also export metrics under Triton's names"
    )
    log_level: str = _option(
        "info", _one_of("debug", "info", "warning", "error"), "least severe log record written"
    )
    optimization_max_time_minutes: float = _option(
        30.0,
        _number(0, math.inf, "a number of minutes above 0", above=True),
        "longest optimization job, in minutes; then the best so far counts",
        variable="OPTIMIZATION_MAX_TIME_MINUTES",
    )
    optimization_accuracy_threshold: float = _option(
        0.99,
        _number(0, 1, "a ratio from 0 to 1"),
        "least accuracy of an optimized model as a ratio to the original's",
        variable="OPTIMIZATION_ACCURACY_THRESHOLD",
    )
    tensorrt_workspace_size_gb: float = _option(
        4.0,
        _number(0, math.inf, "a number of gibibytes above 0", above=True),
        "memory TensorRT may use while it builds, in gibibytes",
        variable="TENSORRT_WORKSPACE_SIZE_GB",
    )
    onnx_opset_version: int = _option(
        17,
        _integer(7, 100, "an ONNX operator set version, 7 or later"),
        "operator set that models are converted to",
        variable="ONNX_OPSET_VERSION",
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value = _parsed(option, getattr(self, option.name), option.name)
            object.__setattr__(self, option.name, value)
        if self.grpc_port == self.http_port != 0:
            raise SettingsError(
                f"grpc_port and http_port: expected two different ports, got {self.grpc_port} twice"
            )

    @property
    def max_message_bytes(self) -> int:
        return self.max_message_mb * 2**20


def load_settings(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file_text: str = "",
    file_name: str = "the configuration file",
) -> ServeSettings:
    """Merges flags (by field name; None: not given), environment and TOML text over defaults.

    Raises:
        SettingsError: a value cannot be used, or the file has a key that is no option; one line
            that names the option, the value, where it came from and what was expected.
    """
    from_file = _read_toml(file_text, file_name)
    values: dict[str, Any] = {}
    for option in fields(ServeSettings):
        variable = _variable(option)
        if flags.get(option.name) not in (None, []):
            given, source = flags[option.name], _flag(option)
        elif environ.get(variable):
            given, source = environ[variable], f"{variable} (environment)"
        elif option.name in from_file:
            given, source = from_file[option.name], f"{option.name} (in {file_name})"
        else:
            continue
        values[option.name] = _parsed(option, given, source)
    return ServeSettings(**values)


def read_settings(flags: Mapping[str, Any]) -> ServeSettings:
    """Settings from the parsed command line, this process's environment and the `--config` file.

    Raises:
        SettingsError: as `load_settings`, or the file cannot be read.
    """
    file_name = flags.get("config") or os.environ.get("INFLIGHT_CONFIG")
    if not file_name:
        return load_settings(flags, os.environ)
    try:
        text = Path(file_name).expanduser().read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        not_text = isinstance(error, UnicodeDecodeError)
        reason = "not UTF-8 text" if not_text else getattr(error, "strerror", None) or error
        raise SettingsError(f"--config: cannot read '{file_name}': {reason}") from None
    return load_settings(flags, os.environ, text, str(file_name))


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Adds one flag per option, each None unless given, with its default and unit in --help.

    Options without a flag are listed at the end.
    """
    parser.epilog = "Without a flag, " + "; ".join(
        f"{_variable(option)}: {option.metadata['meaning']} (default: {_default(option)})"
        for option in fields(ServeSettings)
        if option.metadata["variable"]
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="TOML file of options, keys as the flags with underscores (environment: "
        "INFLIGHT_CONFIG)",
    )
    for option in fields(ServeSettings):
        notes = option.metadata
        if option.name == "models":
            parser.add_argument(
                "models",
                nargs="*",
                default=None,
                metavar="MODEL_OR_REPOSITORY",
                help=f"{notes['meaning']} (environment: {_variable(option)}, separated by"
                f" {os.pathsep!r})",
            )
        elif notes["kind"] is _SWITCH:
            parser.add_argument(
                _flag(option),
                action=argparse.BooleanOptionalAction,
                default=None,
                help=_help(option),
            )
        elif not notes["variable"]:
            parser.add_argument(
                _flag(option), default=None, metavar=notes["kind"].placeholder, help=_help(option)
            )


def _flag(option: "Field[Any]") -> str:
    return (
        "MODEL_OR_REPOSITORY" if option.name == "models" else f"--{option.name.replace('_', '-')}"
    )


def _variable(option: "Field[Any]") -> str:
    return option.metadata["variable"] or f"INFLIGHT_{option.name.upper()}"


def _help(option: "Field[Any]") -> str:
    meaning, variable = option.metadata["meaning"], _variable(option)
    return f"{meaning} (default: {_default(option)}; environment: {variable})"


def _default(option: "Field[Any]") -> str:
    if isinstance(option.default, float):
        return f"{option.default:g}"
    return option.metadata["shown"] or str(option.default)


def _parsed(option: "Field[Any]", value: Any, source: str) -> Any:
    kind: _Kind = option.metadata["kind"]
    try:
        return kind.parse(value)
    except (ValueError, TypeError, OverflowError):
        shown = "something else" if kind.is_secret else repr(value)
        raise SettingsError(f"{source}: expected {kind.expects}, got {shown}") from None


def _read_toml(text: str, file_name: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file_name}: not valid TOML: {error}") from None
    names = [option.name for option in fields(ServeSettings)]
    for key in table:
        if key not in names:
            nearest = difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]
            raise SettingsError(f"{file_name}: unknown key '{key}', the nearest is '{nearest}'")
    return table
