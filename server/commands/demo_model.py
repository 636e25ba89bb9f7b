"""What the demo serves: scikit-learn's handwritten digits and a network trained on them."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from protos.tensors import Array

MODEL = "digits"
INSTALL = "pip install 'inflight[sklearn]'"  # not [cpu]: it would replace a GPU's runtime
_HELD_OUT = 0.3  # of the images: what the clients send
_MEASURED = 0.25  # of the others: what the optimizer calibrates with and is judged by
_CONFIG = """\
[data]
source = "file"
path = "calibration.npz"
labels = "label"
"""


class NotInstalled(Exception):
    """A library of the demo is missing; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class Digits:
    """A repository with the trained model in it, and the images it has not seen."""

    repository: Path
    images: Array  # float32[n, 64]
    labels: Array  # what they show
    expected: Array  # what the classifier says in process
    trained_on: int
    train_s: float


def train(repository: Path) -> Digits:
    """Trains on about half of the digits and writes a repository: model, data, configuration.

    Raises:
        NotInstalled: scikit-learn or skops is missing.
    """
    try:
        import skops.io  # noqa: PLC0415  only the demo needs these
        from sklearn.datasets import load_digits  # noqa: PLC0415
        from sklearn.model_selection import train_test_split  # noqa: PLC0415
    except ImportError as error:
        raise NotInstalled(f"{error.name} is not installed: {INSTALL}") from None
    images, labels = load_digits(return_X_y=True)
    scaled = (images / 16).astype(np.float32)
    x, held_out, y, truth = train_test_split(
        scaled, labels, test_size=_HELD_OUT, random_state=0, stratify=labels
    )
    x, measured, y, answers = train_test_split(
        x, y, test_size=_MEASURED, random_state=0, stratify=y
    )
    began = time.monotonic()
    model = _fitted(x, y)
    train_s = time.monotonic() - began
    version = repository / MODEL / "1"
    version.mkdir(parents=True)
    skops.io.dump(model, version / "model.skops")
    np.savez(version.parent / "calibration.npz", X=measured, label=answers)
    (version.parent / "model.toml").write_text(_CONFIG, encoding="utf-8")
    return Digits(repository, held_out, truth, model.predict(held_out), len(x), train_s)  # type: ignore[attr-defined]


def _fitted(x: Array, y: Array) -> object:
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    network = MLPClassifier((512, 512), max_iter=60, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it has learned enough
        return make_pipeline(StandardScaler(), network).fit(x, y)
