"""What a model's outputs mean, told from their values, names and task: decides nothing.

Every output is brought into the form [answers, values], where an answer is one row, or one token
of a row that a mask among the inputs does not hide.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from optimizer.frameworks.contract import Task
from optimizer.goal import Metric
from optimizer.samples import Samples
from protos.signature import Signature
from protos.tensors import Array

_EMBEDDING_NAME = re.compile(r"emb|pool|feature|vector|hidden", re.IGNORECASE)
_CLASSES_NAME = re.compile(r"logit|prob|score|class", re.IGNORECASE)
_MASK_NAME = re.compile(r"mask", re.IGNORECASE)
_ALMOST_ALL = 0.99  # of the rows; the rest may be empty or padded


class Kind(StrEnum):
    """What an output says."""

    LABEL = "label"  # whole numbers, booleans or texts: right or wrong
    CLASSES = "classes"  # one value for each class, the largest decides
    BINARY = "binary"  # one value, on one side of a limit or the other
    EMBEDDING = "embedding"  # what counts is which rows are near each other
    VALUES = "values"  # amounts


@dataclass(frozen=True, slots=True)
class Answer:
    """One output of the original and the candidate, for the same inputs."""

    name: str
    kind: Kind
    reference: Array  # [answers, values]
    candidate: Array  # the same shape
    row_of: Array  # int64[answers]: the row an answer belongs to

    @property
    def is_float(self) -> bool:
        return is_float(self.reference)

    @property
    def is_per_row(self) -> bool:
        """Whether there is one answer a row, so that it can be compared with a label."""
        return bool(np.array_equal(self.row_of, np.arange(len(self.reference))))


def read_answers(
    reference: Mapping[str, Array],
    candidate: Mapping[str, Array],
    samples: Samples,
    task: Task | None,
    metric: Metric,
) -> list[Answer]:
    """All outputs that have values; both mappings have the same names and shapes."""
    found = []
    for name, wanted in reference.items():
        if not wanted.size:
            continue
        hidden = _mask(samples, wanted)
        first, row_of = _answers(wanted, hidden)
        second, _ = _answers(candidate[name], hidden)
        kind = Kind.LABEL
        if is_float(wanted):
            asked = _asked_kind(first, metric)
            kind = asked or _kind(name, wanted.ndim, first, samples.labels, task)
        found.append(Answer(name, kind, first, second, row_of))
    return found


def deciding(answers: list[Answer], signature: Signature, task: Task | None) -> list[Answer]:
    """The outputs that a caller acts on.

    Of a classifier or clusterer its labels where it gives them, of everything else all outputs;
    the label stands beside its own probabilities or scores and says no more than they do. Where
    there are several labels, each decides something.
    """
    order = {spec.name: index for index, spec in enumerate(signature.outputs)}
    answers = sorted(answers, key=lambda answer: order.get(answer.name, len(order)))
    labels = [answer for answer in answers if answer.kind is Kind.LABEL]
    if task in ("classification", "clustering"):
        classes = [a for a in answers if a.kind in (Kind.CLASSES, Kind.BINARY)]
        return labels or classes or answers
    is_named = any("label" in answer.name.lower() for answer in labels)
    return labels if is_named else answers


def is_float(array: Array) -> bool:
    """Whether an array holds floats, BF16 among them."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _answers(array: Array, visible: Array | None) -> tuple[Array, Array]:
    """Rows, or the tokens of rows, as [answers, values]; and the row of each."""
    rows = array.shape[0] if array.ndim else 1
    if array.ndim != 3:
        return array.reshape(rows, -1), np.arange(rows)
    tokens = array.reshape(-1, array.shape[2])
    row_of = np.repeat(np.arange(rows), array.shape[1])
    if visible is None:
        return tokens, row_of
    return tokens[visible.ravel()], row_of[visible.ravel()]


def _mask(samples: Samples, output: Array) -> Array | None:
    """Which tokens of [rows, tokens, values] count, by an input that is their mask."""
    if output.ndim != 3:
        return None
    for name, array in samples.inputs.items():
        if _MASK_NAME.search(name) and array.shape == output.shape[:2] and array.any():
            return array.astype(bool)
    return None


def _kind(name: str, n_axes: int, answers: Array, labels: Array | None, task: Task | None) -> Kind:
    """Of floats; `n_axes` are those of the output itself."""
    if task == "regression" or n_axes > 3:
        return Kind.VALUES
    if answers.shape[1] == 1:
        return Kind.BINARY if _is_binary(answers, labels, task) else Kind.VALUES
    if task == "classification" or _are_probabilities(answers):
        return Kind.CLASSES
    return _kind_by_look(name, n_axes, answers)


def _asked_kind(answers: Array, metric: Metric) -> Kind | None:
    """The kind that a metric makes sense for, where one was asked."""
    if metric in ("top1", "f1"):
        return Kind.CLASSES if answers.shape[1] > 1 else Kind.BINARY
    if metric in ("rmse", "r2", "relative_error"):
        return Kind.VALUES
    return Kind.EMBEDDING if metric == "cosine" else None


def _kind_by_look(name: str, n_axes: int, answers: Array) -> Kind:
    """By name where it says something; rows of length one are embeddings, other rows classes."""
    if n_axes == 3:  # tokens
        return Kind.CLASSES if _CLASSES_NAME.search(name) else Kind.VALUES
    if _EMBEDDING_NAME.search(name) or (answers.shape[1] >= 8 and _have_length_one(answers)):
        return Kind.EMBEDDING
    return Kind.CLASSES


def _is_binary(answers: Array, labels: Array | None, task: Task | None) -> bool:
    if task is not None and task != "other":
        return task == "classification"
    if labels is None or labels.dtype.kind not in "biuf" or not set(np.unique(labels)) <= {0, 1}:
        return False
    return all(bool(((part >= 0) & (part <= 1)).all()) for part in _parts(answers))


def _are_probabilities(answers: Array) -> bool:
    fits = [
        ((part >= -1e-6).all(axis=1)) & (np.abs(part.sum(axis=1) - 1) < 1e-2)
        for part in _parts(answers)
    ]
    return float(np.mean(np.concatenate(fits))) >= _ALMOST_ALL


def _have_length_one(answers: Array) -> bool:
    fits = [np.abs(np.linalg.norm(part, axis=1) - 1) < 1e-2 for part in _parts(answers)]
    return float(np.mean(np.concatenate(fits))) >= _ALMOST_ALL


def _parts(answers: Array) -> Iterator[Array]:
    """As float64, a part at a time: outputs of language models are large."""
    for start in range(0, len(answers), 1024):
        yield answers[start : start + 1024].astype(np.float64)
