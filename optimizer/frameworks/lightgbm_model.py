"""LightGBM's own files: .txt."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.errors import SourceError
from optimizer.frameworks.booster import BoosterModel
from optimizer.frameworks.thresholds import lightgbm_categories, lightgbm_splits, sorted_thresholds
from optimizer.samples import Samples
from optimizer.source import SourceModel
from protos.tensors import Array


@dataclass(frozen=True, slots=True)
class Objective:
    """What a dump says of its objective: "binary sigmoid:1", "regression sqrt"."""

    name: str
    scale: float = 1.0  # of the sums, before the sigmoid
    is_root: bool = False  # it learnt the root of the target


class LightGBMModel(BoosterModel):
    """A booster; it predicts with its best iteration, as LightGBM does by itself."""

    def __init__(self, booster: Any) -> None:
        self.booster = booster
        dump = booster.dump_model()
        self._threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        splits = sorted_thresholds(lightgbm_splits(dump))
        categories = sorted_thresholds(lightgbm_categories(dump))
        labels = labels_of(dump)
        super().__init__(self._run, booster.num_feature(), labels, splits, categories)

    def _run(self, matrix: Array) -> Array:
        return np.asarray(self.booster.predict(matrix, num_threads=self._threads))


def load(path: Path, samples: Samples | None = None) -> LightGBMModel:
    """Opens a file that `Booster.save_model` wrote.

    Raises:
        SourceError: it is none.
    """
    import lightgbm  # noqa: PLC0415

    try:
        booster = lightgbm.Booster(model_file=str(path))
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise SourceError(f"'{path}' is no LightGBM model: {error}") from None
    return LightGBMModel(booster)


def save(model: Any, folder: Path) -> SourceModel:
    """Writes a Booster as "model.txt"."""
    path = folder / "model.txt"
    model.save_model(path)
    return SourceModel(path, "lightgbm")


def objective_of(dump: dict[str, Any]) -> Objective:
    """Raises nothing: without an objective (a function of the user's own) it is "custom"."""
    name, *words = str(dump.get("objective", "custom")).split()
    settings = dict(word.split(":") for word in words if ":" in word)
    return Objective(name, float(settings.get("sigmoid", 1.0)), "sqrt" in words)


def labels_of(dump: dict[str, Any]) -> Array | None:
    """The classes 0, 1, ... of a classifier; None for others."""
    name = objective_of(dump).name
    if name == "binary":
        return np.arange(2, dtype=np.int64)
    if name not in ("multiclass", "multiclassova"):
        return None
    return np.arange(dump["num_class"], dtype=np.int64)
