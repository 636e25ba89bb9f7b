"""Opens one version: memory check, backend, configuration check, probes, warm-up.

Everything here blocks and runs in a loader thread; nothing here knows the event loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from protos.tensors import Array
from server.backends.base import Backend, Signature
from server.batch_policy import BatchSettings
from server.probe import Profile
from server.model_config import VersionSource


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What the server grants one load."""

    threads: int  # compute threads the server plans with, all models together
    models: int = 1  # models that load in the same pass; the more, the less each may measure


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An opened version, probed and warm. The owner closes it."""

    narrow: Backend  # the session that all instances share
    wide: Backend | None  # the same model on all planned threads, for a batch that runs alone
    instances: int  # runs of `narrow` that may be under way at once
    signature: Signature
    profile: Profile
    settings: BatchSettings
    example: Mapping[str, Array]  # one request that the model answers; empty: none was found

    def close(self) -> None:
        """Frees both backends. No run is under way or follows."""
        self.narrow.close()
        if self.wide is not None:
            self.wide.close()


def load(source: VersionSource, plan: LoadPlan) -> LoadedModel:
    """Opens a version and finds out how it is best run; takes milliseconds to minutes.

    Call it on a thread of its own priority: it works on low-priority threads that it starts, so
    that running requests go first.

    Raises:
        LoadFailed: with a reason an operator can act on; nothing stays open.
    """
    raise NotImplementedError
