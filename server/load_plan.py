"""Which versions to open and which to let go: pure decisions on what is wanted and what serves."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.fingerprint import Fingerprint
from server.model_config import ModelConfig
from server.repository import VersionFile


@dataclass(frozen=True, slots=True)
class Origin:
    """What a served version is made from; unequal origins are different models."""

    file: VersionFile
    config: ModelConfig


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The steps for one model: `open` first, and `close` only if all of `open` succeeded.

    In this order a version that cannot be opened never costs the one that serves.
    """

    open: tuple[int, ...]
    broken: tuple[int, ...]  # wanted, but it is known already that they cannot be opened
    close: tuple[int, ...]


def plan_load(wanted: Mapping[int, Origin], serving: Mapping[int, Origin]) -> LoadPlan:
    """The way from what serves to what is wanted; what is the same in both is left alone."""
    changed = [number for number in sorted(wanted) if wanted[number] != serving.get(number)]
    return LoadPlan(
        open=tuple(number for number in changed if not wanted[number].file.error),
        broken=tuple(number for number in changed if wanted[number].file.error),
        close=tuple(number for number in sorted(serving) if number not in wanted),
    )


def settled_changes(
    now: Mapping[str, Fingerprint],
    before: Mapping[str, Fingerprint],
    acted_on: Mapping[str, Fingerprint],
) -> list[str]:
    """The models whose files changed and have come to rest, by name.

    At rest means: the last two looks at the repository saw the same, so a copy that is still
    running is left until it is complete. A model that is gone must be missing twice as well.
    """
    return [
        name
        for name in sorted({*now, *acted_on})
        if now.get(name) != acted_on.get(name) and now.get(name) == before.get(name)
    ]
