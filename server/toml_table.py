"""Typed reading of a TOML file: values are checked, leftovers are errors, errors name the line.

Knows nothing of models. A check turns a TOML value into ours and raises ValueError saying what
was expected; `TomlFile.error` adds where.
"""

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Check = Callable[[Any], T]


class TomlError(ValueError):
    """A TOML file is wrong: names file, line where known, key, and what was expected."""


class TomlFile:
    """A parsed file with its text, which only error messages need (for the line)."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            TomlError: unreadable, or not TOML.
        """
        self.path = path
        try:
            self._text = path.read_text(encoding="utf-8")
            self.values = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            raise TomlError(f"{path}: not valid TOML: {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise TomlError(f"{path}: cannot be read: {error}") from None

    def error(self, table: str, key: str, problem: str) -> TomlError:
        line = _line_of(self._text, table, key)
        where = f", line {line}" if line else ""
        name = f"[{table}] {key}" if table else key
        return TomlError(f"{self.path}{where}: {name}: {problem}")

    def top(self, tables: tuple[str, ...]) -> "TomlTable":
        """The keys outside all tables; `tables` are the names of those that may follow."""
        values = {key: value for key, value in self.values.items() if key not in tables}
        return TomlTable(self, "", values, tables)

    def table(self, name: str) -> "TomlTable":
        """A table by name; an absent one is empty."""
        values = self.values.get(name, {})
        if not isinstance(values, dict):
            raise self.error("", name, f"expected a table [{name}], got {_shown(values)}")
        return TomlTable(self, name, values)


class TomlTable:
    """One table being read. What is left when all known keys are taken is unknown."""

    def __init__(
        self, file: TomlFile, name: str, values: Mapping[str, Any], known: tuple[str, ...] = ()
    ) -> None:
        self._file, self._name = file, name
        self._left = dict(values)
        self._known = list(known)

    def take(self, key: str, check: Check[T], default: T) -> T:
        """The checked value of a key, or the default where the file does not have it."""
        self._known.append(key)
        if key not in self._left:
            return default
        value = self._left.pop(key)
        try:
            return check(value)
        except ValueError as error:
            raise self.error(key, f"expected {error}, got {_shown(value)}") from None

    def finish(self) -> None:
        """Raises TomlError for the first key nobody took, with the nearest valid one."""
        for key in self._left:
            raise self.error(key, f"unknown key; {_nearest(key, self._known)}")

    def error(self, key: str, problem: str) -> TomlError:
        return self._file.error(self._name, key, problem)


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text in quotes")
    return value


def integer(low: int, high: int | None = None) -> Check[int]:
    expected = f"a whole number >= {low}" if high is None else f"a whole number {low} to {high}"

    def check(value: Any) -> int:
        # bool is an int to Python, not to the reader of a configuration.
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(expected)
        if value < low or (high is not None and value > high):
            raise ValueError(expected)
        return value

    return check


def number(expected: str, accepts: Callable[[float], bool], per: float = 1.0) -> Check[float]:
    """A finite number that `accepts` takes, divided by `per` (1e3: milliseconds to seconds)."""

    def check(value: Any) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not accepts(value):
            raise ValueError(expected)
        return float(value) / per

    return check


def one_of(*names: str) -> Check[str]:
    def check(value: Any) -> str:
        if value not in names:
            raise ValueError("one of " + ", ".join(f'"{name}"' for name in names))
        return str(value)

    return check


def texts(*names: str, may_be_empty: bool = False) -> Check[tuple[str, ...]]:
    """A list of texts; of these names only where some are given."""
    expected = "a list of texts" + (f" of {', '.join(names)}" if names else "")

    def check(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not (value or may_be_empty):
            raise ValueError(expected)
        if not all(isinstance(item, str) and (not names or item in names) for item in value):
            raise ValueError(expected)
        return tuple(value)

    return check


def optional(check: Check[T]) -> Check[T | None]:
    """`check` for a key whose absence is None."""
    return check


def auto(check: Check[T]) -> Check[T | None]:
    """`check`, or the text "auto", which is None here: inferred."""

    def checked(value: Any) -> T | None:
        if value == "auto":
            return None
        try:
            return check(value)
        except ValueError as error:
            raise ValueError(f'"auto" or {error}') from None

    return checked


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nearest(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    valid = f"valid keys: {', '.join(known)}"
    return f'did you mean "{near[0]}"? ({valid})' if near else valid


def _line_of(text: str, table: str, key: str) -> int | None:
    """The line where a key is set, found in the text: the TOML parser does not tell."""
    current = ""
    for line_number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
        if header:
            current = header[1]
            if not table and current.split(".")[0] == key:
                return line_number
        elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return line_number
    return None
