"""Which artifact serves for a version, or was rolled back, kept over restarts.

Whoever decided it (a job, an operator): a restart serves the same at once. A choice holds for one
content of the model's file on one machine with its libraries; on another it does not count. What
the configuration asked for then is kept beside it: where it asks for something else now, the choice
serves only until a job has found out anew.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was decided for one version."""

    source: str  # fingerprint of the model's file
    machine: str  # fingerprint of the machine and its libraries
    artifact_id: str
    optimization_id: str
    is_held_back: bool = False  # rolled back: serves again only when it is promoted
    configured: str = ""  # print of what the configuration asked for; "": not known


class Choices:
    """The choices of one server, in one small file. Its methods block for a moment."""

    def __init__(self, path: Path) -> None:
        """Reads the file; one that is damaged counts as empty, with a word in the log."""
        self._path = path
        self._choices: Mapping[str, Choice] = {}
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            self._choices = {key: Choice(**value) for key, value in values.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as error:
            logger.warning("'%s' is not read, models serve as they come: %s", path, error)

    def get(self, model: str, version: int) -> Choice | None:
        return self._choices.get(_key(model, version))

    def set(self, model: str, version: int, choice: Choice) -> None:
        """Written aside and renamed. What cannot be written holds until the server ends."""
        self._choices = {**self._choices, _key(model, version): choice}
        values = {key: asdict(value) for key, value in self._choices.items()}
        aside = self._path.with_suffix(".new")
        try:
            aside.write_text(json.dumps(values, indent=1, sort_keys=True), encoding="utf-8")
            os.replace(aside, self._path)
        except OSError as error:
            logger.warning("'%s' cannot be written: %s", self._path, error)


def _key(model: str, version: int) -> str:
    return f"{model}/{version}"
