"""Trained networks and real inputs for tests; torch is imported when one of them is built.

Every builder writes into a folder and leaves alone what an earlier call wrote there, so one folder
for a whole test session (the fixture `model_folder`) builds each model once.
"""

from pathlib import Path

from loadtests.datasets import Digits, digits_data, sentences, tokenized

__all__ = [
    "Digits",
    "digits_cnn",
    "digits_cnn_pt2",
    "digits_data",
    "minilm",
    "minilm_pt2",
    "resnet50",
    "sentences",
    "tokenized",
]


def digits_cnn(folder: Path) -> Path:
    """image FP32[n, 1, 8, 8] -> logits FP32[n, 10]; 3.28 MB; trains for about 10 s."""
    from loadtests import models_torch

    return models_torch.digits_cnn(folder)


def digits_cnn_pt2(folder: Path) -> Path:
    """The same as torch.export.save writes it."""
    from loadtests import models_torch

    return models_torch.digits_cnn_pt2(folder)


def minilm(folder: Path) -> Path:
    """input_ids, attention_mask INT64[n, s] -> embedding FP32[n, 384]; 91 MB."""
    from loadtests import models_torch

    return models_torch.minilm(folder)


def minilm_pt2(folder: Path) -> Path:
    """The same as torch.export.save writes it."""
    from loadtests import models_torch

    return models_torch.minilm_pt2(folder)


def resnet50(folder: Path) -> Path:
    """image FP32[n, 3, 224, 224] -> logits FP32[n, 1000]; random weights; 94 MB."""
    from loadtests import models_torch

    return models_torch.resnet50(folder)
