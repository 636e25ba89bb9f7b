"""Small PyTorch modules, each with something that an exporter may trip over."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Moments(NamedTuple):
    mean: Tensor
    deviation: Tensor


class Statistics(nn.Module):
    """x [n, f] -> a named tuple."""

    def forward(self, x: Tensor) -> Moments:
        return Moments(x.mean(1), x.std(1))


class Nested(nn.Module):
    """x [n, 4], scale [n, 1] -> nested outputs; one is called as a weight is, one is an input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(3) * 2)

    def forward(self, x: Tensor, unused: None = None, *, scale: Tensor) -> dict[str, Any]:
        y = self.linear(x) * self.scale
        return {"linear": y * scale, "both": [y.sum(1), y.argmax(1)], "x": x, "nothing": None}


class Classifier(nn.Module):
    """steps [n, length, 8] -> softmax [n, 3] of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, steps: Tensor) -> Tensor:
        return torch.softmax(self.head(self.encoder(steps).mean(1)), -1)


class TokenMean(nn.Module):
    """ids, mask [n, length] -> embedding [n, 4], which is the name of an operator, too."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, 4)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        kept = mask.unsqueeze(-1).float()
        return {"embedding": (self.table(ids) * kept).sum(1) / kept.sum(1).clamp(min=1)}


class Recurrent(nn.Module):
    """x [n, length, 4] -> [n, 2]: torch.export unrolls a recurrence, so the length is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.head(self.cell(x)[0][:, -1])
        return last


class Waves(nn.Module):
    """signal [n, 3, length] -> [n, 2]: the length comes after the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 2)
        )

    def forward(self, signal: Tensor) -> Tensor:
        logits: Tensor = self.layers(signal)
        return logits


class PairsOnly(nn.Module):
    """x [2, f] -> the same: any other batch is an error."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1) + 1


class Halves(nn.Module):
    """x BF16, y [n, f] -> BF16, FP16 and BOOL."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x * 2, y.to(torch.float16), y > 0


class Depends(nn.Module):
    """A forward that torch.export cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x
