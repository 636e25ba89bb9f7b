"""What the artifact store writes down: one JSON file per key, and the order in which things go."""

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from optimizer import store_files

logger = logging.getLogger(__name__)

_VERSION = 1  # of the records' form
_FINGERPRINT = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Record:
    """An entry (which artifact the parts of a key made) or a winner (what a job ended in)."""

    parts: Mapping[str, str]
    artifact_id: str  # of a winner: empty where nothing was better than the original
    size_bytes: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of each file of an entry
    report: str = ""  # of a winner; JSON
    key: str = ""
    used_at_ns: int = 0


class Records:
    """A folder of records by key. Each is replaced as a whole; its file's time is its last use."""

    def __init__(self, folder: Path, aside: Path) -> None:
        self._folder = folder
        self._aside = aside

    def read(self, key: str) -> Record | None:
        """None where there is none; a damaged one is dropped."""
        path = self._path(key)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value.pop("version") != _VERSION:
                raise ValueError("another version")
            return replace(Record(**value), key=key, used_at_ns=path.stat().st_mtime_ns)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("'%s' is dropped, it is damaged: %r", path, error)
            self.drop(key)
            return None

    def write(self, key: str, record: Record) -> None:
        value = {"version": _VERSION, **asdict(record)}
        del value["key"], value["used_at_ns"]
        store_files.write_json(self._path(key), value, self._aside)
        self.touch(key)

    def touch(self, key: str) -> None:
        """Counts a record as used now."""
        now = time.time_ns()  # finer than the kernel's own
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path(key), ns=(now, now))

    def drop(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def all(self) -> list[Record]:
        found = (self.read(path.stem) for path in sorted(self._folder.glob("*.json")))
        return [record for record in found if record is not None]

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def removal_order(entries: Iterable[Record], winners: Iterable[Record]) -> list[str]:
    """Ids of the artifacts: those used longest ago first, winners after all others."""
    by_age = sorted([*winners, *entries], key=lambda record: record.used_at_ns)
    used_at = {record.artifact_id: record.used_at_ns for record in by_age if record.artifact_id}
    won = {record.artifact_id for record in winners}
    return sorted(used_at, key=lambda artifact_id: (artifact_id in won, used_at[artifact_id]))


def explain_miss(parts: Mapping[str, str], known: Iterable[Record]) -> str:
    """Which parts differ from the nearest record of the same kind; for people."""

    def likeness(record: Record) -> tuple[int, int]:
        same = sum(record.parts[name] == value for name, value in parts.items())
        return same, record.used_at_ns

    alike = [record for record in known if record.parts.keys() == parts.keys()]
    if not alike:
        return "nothing of this kind was stored before"
    nearest = max(alike, key=likeness).parts
    changes = [
        f"{name} was '{_shown(nearest[name])}' and is '{_shown(value)}'"
        for name, value in sorted(parts.items())
        if nearest[name] != value
    ]
    return "; ".join(changes) or "it is stored"


def _shown(value: str) -> str:
    """Of a fingerprint, enough to tell it from another."""
    return value[:12] if _FINGERPRINT.fullmatch(value) else value
