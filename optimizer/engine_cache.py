"""Keeps TensorRT engines, which take minutes to build and fit one machine only.

They are artifacts of the store, so they are whole or not there, checked by digest before they are
used, and collected when there are too many. Besides, the times of kernels are kept by GPU and
version of TensorRT: they make every further build faster.
"""

import logging
import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from optimizer.artifact import Artifact
from optimizer.device import Device
from optimizer.engine_builder import BuildOrder, EngineBuilder
from optimizer.engine_key import HERE, EngineKey, differences, key_here
from optimizer.errors import OptimizationError
from optimizer.shape_profile import ShapeProfile
from optimizer.store import ArtifactStore, key_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lookup:
    """An engine, or why there is none: the part of its key that changed."""

    engine: Artifact | None
    reason: str = ""


class EngineCache:
    """Engines in an artifact store. Any number of threads and processes may use it at once.

    Args:
        store: Where the engines are.
        timing: Folder for the times of kernels; made if need be.
    """

    def __init__(self, store: ArtifactStore, timing: Path) -> None:
        self._store = store
        self._timing = timing

    def find(self, key: EngineKey) -> Lookup:
        parts = key.parts()
        engine = self._store.find(key_of(parts))
        return Lookup(engine) if engine else Lookup(None, self._store.explain_miss(parts))

    def find_or_build(
        self, model: Path, key: EngineKey, builder: EngineBuilder, work: Path
    ) -> Artifact:
        """The engine of a key; it is built in the folder `work` where there is none.

        Raises:
            Unavailable, PassError: as the builder's `build`.
            OptimizationError: it cannot be stored.
        """
        found = self.find(key)
        if found.engine is not None:
            return found.engine
        logger.info("a TensorRT engine is built: %s", found.reason)
        folder = work / uuid.uuid4().hex
        folder.mkdir(parents=True)
        order = BuildOrder(model, key, folder, self.timing_folder(key))
        return self._store.put(folder, builder.build(order), key.parts())

    def timing_folder(self, key: EngineKey) -> Path:
        """Where the times of kernels are kept that this engine's build may use and adds to."""
        of = f"{key.gpu} sm{key.compute_capability} trt{key.tensorrt}"
        folder = self._timing / re.sub(r"[^\w.]+", "_", of)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def profile_of_engine(artifact: Artifact) -> ShapeProfile:
    """Which shapes a stored engine is for.

    Raises:
        OptimizationError: its manifest does not say.
    """
    try:
        return ShapeProfile.from_json(artifact.options["profile"])
    except (KeyError, TypeError, ValueError) as error:
        raise OptimizationError(f"{artifact.folder}: no shape profile: {error!r}") from None


def why_not_here(artifact: Artifact, device: Device, gpu: int = 0) -> str:
    """Why an engine cannot be loaded on this machine, found without loading it; empty when it can.

    Raises:
        Unavailable: there is no GPU, or no TensorRT.
        OptimizationError: the artifact is no engine.
    """
    built_for = artifact.options.get("built_for")
    if not isinstance(built_for, dict):
        raise OptimizationError(
            f"{artifact.folder}: its manifest does not say what it is built for"
        )
    here = key_here(
        device,
        built_for.get("model", ""),
        profile_of_engine(artifact),
        artifact.options["precision"],
        gpu=gpu,
        uses_onnxruntime=bool(built_for.get("ONNX Runtime")),
    ).parts()
    return differences(built_for, {name: here[name] for name in HERE})
