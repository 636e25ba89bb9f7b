"""A TensorRT engine for the shapes it is built for, and the model itself for all others."""

import logging
import threading
from collections.abc import Mapping, Sequence

from optimizer.shape_profile import ShapeProfile
from protos.tensors import Array
from server.backends.base import Backend

logger = logging.getLogger(__name__)

_MOST_TOLD = 100  # shapes; clients decide how many different ones there are


class ProfiledBackend:
    """Dispatches by shape. `run` may be called from several threads at once.

    An engine that is given other shapes would be built again, for seconds to minutes in which every
    request waits.
    """

    fallback = ""

    def __init__(self, engine: Backend, baseline: Backend, profile: ShapeProfile) -> None:
        self.engine, self.baseline, self.profile = engine, baseline, profile
        self.signature = engine.signature
        self.platform = engine.platform
        self.artifact_id = engine.artifact_id
        self.devices = tuple(dict.fromkeys((*engine.devices, *baseline.devices)))
        self.threads = max(engine.threads, baseline.threads)
        self.memory_bytes = engine.memory_bytes  # of the whole artifact, the model included
        self.is_in_process = engine.is_in_process and baseline.is_in_process
        self.instances = engine.instances
        self.runs_elsewhere = 0  # that the baseline was given
        self._told: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        """As the engine's or the baseline's, by the shapes of the inputs."""
        reason = self._why_not(inputs)
        if not reason:
            return self.engine.run(inputs, output_names)
        self._count(inputs, reason)
        return self.baseline.run(inputs, output_names)

    def interrupt(self, thread: int) -> None:
        self.engine.interrupt(thread)
        self.baseline.interrupt(thread)

    def close(self) -> None:
        if self.runs_elsewhere:
            logger.info(
                "'%s': %d runs were not on its engine", self.artifact_id, self.runs_elsewhere
            )
        self.engine.close()
        self.baseline.close()

    def _why_not(self, inputs: Mapping[str, Array]) -> str:
        """Why the engine cannot run this; empty when it can."""
        if len(inputs) > len(self.profile.inputs):
            given = next(name for name in inputs if name not in self.profile.inputs)
            return f"input '{given}' is a constant of the engine"
        return self.profile.why_not({name: array.shape for name, array in inputs.items()})

    def _count(self, inputs: Mapping[str, Array], reason: str) -> None:
        """Counts a run that goes to the baseline; the first one of each shape goes to the log."""
        shapes = tuple((name, array.shape) for name, array in sorted(inputs.items()))
        with self._lock:
            self.runs_elsewhere += 1
            if shapes in self._told or len(self._told) == _MOST_TOLD:
                return
            self._told.add(shapes)
        where = ", ".join(self.baseline.devices)
        logger.warning(
            "'%s' runs without its TensorRT engine, on %s: %s", self.artifact_id, where, reason
        )
