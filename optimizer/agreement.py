"""How well a candidate agrees with the original, and both with the labels, in one figure.

The figure (`Score.value`) is 1 where the candidate is as good as the original.

With labels it is the ratio of the candidate's accuracy to the original's: top-1 accuracy, macro F1
or R² divided by the original's; of RMSE, where less is better, the original's divided by the
candidate's, errors under a thousandth of the labels' standard deviation not counted.

Without labels it is the agreement with the original's own outputs: the share of rows with the same
decision (top1), the macro F1 or R² with the original taken for the truth, the share of rows with
the same nearest neighbour (nn1), the mean cosine, or 1 minus the mean over rows of the root mean
square difference relative to the spread of the outputs (relative_error).

Labels count only where the original's answers agree with them better than by chance. Where they are
all of one class, shuffled, of another model or in other units, the worse candidate would have the
better ratio; then its agreement with the original decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from optimizer import metrics
from optimizer.answers import Answer, Kind
from optimizer.differences import columns, difference, finite_answers
from optimizer.goal import Metric
from protos.tensors import Array

_UNNOTICED = 1e-3  # of the labels' standard deviation: RMSE that counts as none
_TIE = 1e-5  # of a row's range: values this close are as large as each other
_MOST_NEIGHBOURS = 2048  # rows compared with each other


@dataclass(frozen=True, slots=True)
class Score:
    """What was found out; `value` decides."""

    metric: str
    value: float
    original: float | None = None  # accuracy on the labels
    optimized: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


def score(answer: Answer, others: list[Answer], labels: Array | None, metric: Metric) -> Score:
    """Judges one deciding output; `others` are all the model's, for ties of labels."""
    usable = finite_answers(answer) if answer.is_float else np.ones(len(answer.reference), bool)
    part = _take(answer, usable)
    if labels is not None and metric not in ("cosine", "relative_error") and answer.is_per_row:
        with_labels = _score_with_labels(part, labels[usable], metric)
        if with_labels is not None:
            return with_labels
    return _score_without(part, [_take(other, usable) for other in others], metric)


def _score_with_labels(answer: Answer, labels: Array, metric: Metric) -> Score | None:
    """None where the labels say nothing about this output."""
    if answer.kind is Kind.VALUES:
        return _regression(answer, labels, metric)
    if answer.kind is Kind.EMBEDDING:
        return None
    pair = named_decisions(answer, labels)
    if pair is None:
        return None
    figures = {
        "top1": tuple(metrics.accuracy(labels, decided) for decided in pair),
        "f1": tuple(metrics.macro_f1(labels, decided) for decided in pair),
    }
    name = "f1" if metric == "f1" else "top1"
    original, optimized = figures[name]
    if not metrics.beats_chance(labels, pair[0]):
        return None
    agreement = {"agreement": metrics.accuracy(pair[0], pair[1])}
    return Score(name, optimized / original, original, optimized, _flat(figures) | agreement)


def _regression(answer: Answer, labels: Array, metric: Metric) -> Score | None:
    if answer.reference.shape[1] != 1 or labels.dtype.kind not in "biuf":
        return None
    truth, first, second = labels, answer.reference[:, 0], answer.candidate[:, 0]
    errors = metrics.rmse(truth, first), metrics.rmse(truth, second)
    shares = metrics.r2(truth, first), metrics.r2(truth, second)
    figures = _flat({"rmse": errors, "r2": shares})
    if not shares[0] > metrics.CHANCE**2 / len(truth):
        return None
    if metric == "r2":
        return Score("r2", shares[1] / shares[0], *shares, figures)
    unnoticed = _UNNOTICED * float(np.std(truth.astype(np.float64)))
    if errors[1] + unnoticed == 0:
        return Score("rmse", 1.0, *errors, figures)
    return Score("rmse", (errors[0] + unnoticed) / (errors[1] + unnoticed), *errors, figures)


def _score_without(answer: Answer, others: list[Answer], metric: Metric) -> Score:
    if answer.kind is Kind.EMBEDDING or metric == "cosine":
        return _embeddings(answer, metric)
    if answer.kind is Kind.VALUES:
        return _values(answer, metric)
    first, second = decisions(answer)
    agreed = settled(answer, others)
    figures = {"top1": float(np.mean(agreed)), "f1": metrics.macro_f1(first, second)}
    name = "f1" if metric == "f1" else "top1"
    return Score(name, figures[name], figures=figures)


def _values(answer: Answer, metric: Metric) -> Score:
    parts = columns(answer)
    figures = {
        "relative_error": max(difference(part).mean for part in parts),
        "r2": min(metrics.r2(part.reference, part.candidate) for part in parts),
    }
    if metric == "r2" and np.isfinite(figures["r2"]):
        return Score("r2", figures["r2"], figures=figures)
    return Score("relative_error", 1 - figures["relative_error"], figures=figures)


def _embeddings(answer: Answer, metric: Metric) -> Score:
    alike = metrics.cosines(answer.reference, answer.candidate)
    figures = {"cosine": float(alike.mean()), "worst_cosine": float(alike.min())}
    if metric == "cosine" or len(alike) < 3:
        return Score("cosine", figures["cosine"], figures=figures)
    rows = slice(0, _MOST_NEIGHBOURS)
    nn1 = metrics.neighbour_agreement(answer.reference[rows], answer.candidate[rows])
    return Score("nn1", min(nn1, figures["cosine"]), figures=figures | {"nn1": nn1})


def label_flips(answer: Answer, others: list[Answer], tie: float) -> Array:
    """The rows whose label differs though the original was not undecided: int64[flips]."""
    return answer.row_of[~settled(answer, others, tie)]


def settled(answer: Answer, others: list[Answer], tie: float = _TIE) -> Array:
    """Where both decide the same, or the original is undecided: bool[answers]."""
    first, second = decisions(answer)
    return np.asarray(metrics.same(first, second) | _ties(answer, others, tie))


def decisions(answer: Answer) -> tuple[Array, Array]:
    """What both decide, in the output's own words: a class, its number, yes or no."""
    if answer.kind is Kind.CLASSES:
        return answer.reference.argmax(axis=1), answer.candidate.argmax(axis=1)
    if answer.kind is Kind.BINARY:
        limit = _limit(answer.reference)
        return (answer.reference > limit).ravel(), (answer.candidate > limit).ravel()
    if answer.reference.shape[1] == 1:
        return answer.reference[:, 0], answer.candidate[:, 0]
    # Several labels a row are right together or not at all.
    is_same = np.all(metrics.same(answer.reference, answer.candidate), axis=1)
    return np.zeros(len(is_same), int), np.asarray(~is_same).astype(int)


def named_decisions(answer: Answer, labels: Array) -> tuple[Array, Array] | None:
    """What both decide, in the words of the labels; None where that cannot be told."""
    if answer.kind is Kind.LABEL and answer.reference.shape[1] > 1:
        return None
    first, second = decisions(answer)
    if answer.kind is Kind.LABEL:
        return first, second
    names = _class_names(labels, 2 if answer.kind is Kind.BINARY else answer.reference.shape[1])
    if names is None:
        return None
    return names[first.astype(int)], names[second.astype(int)]


def _class_names(labels: Array, n_classes: int) -> Array | None:
    """The label of each class: its number, or the sorted labels where they are as many."""
    names = np.unique(labels)
    if labels.dtype.kind in "biuf" and np.isin(names, np.arange(n_classes)).all():
        return np.arange(n_classes)
    return names if len(names) == n_classes else None


def _limit(reference: Array) -> float:
    """Between no and yes: of probabilities a half, of raw scores zero."""
    is_probability = bool(((reference >= 0) & (reference <= 1)).all())
    return 0.5 if is_probability else 0.0


def _ties(answer: Answer, others: list[Answer], tie: float = _TIE) -> Array:
    """Rows where the original is undecided, so that either answer is as right."""
    if answer.kind is Kind.CLASSES:
        values = answer.reference.astype(np.float64)
        chosen = values[np.arange(len(values)), answer.candidate.argmax(axis=1)]
        return np.asarray(values.max(axis=1) - chosen <= tie * _spread(values))
    if answer.kind is Kind.BINARY:
        values = answer.reference.astype(np.float64)
        gaps = np.abs(values - _limit(values)).ravel()
        return np.asarray(gaps <= tie * 2 * np.median(gaps))
    tied = np.zeros(len(answer.reference), bool)
    for other in others:
        if answer.kind is Kind.LABEL and other.is_float and len(other.reference) == len(tied):
            tied |= _closest_pair(other.reference.astype(np.float64), tie)
    return tied


def _closest_pair(values: Array, tie: float) -> Array:
    """Rows whose two largest values, or two smallest (distances), are as large as each other."""
    if values.shape[1] < 2:
        return np.zeros(len(values), bool)
    ordered = np.sort(values, axis=1)
    gaps = np.minimum(ordered[:, -1] - ordered[:, -2], ordered[:, 1] - ordered[:, 0])
    if values.shape[1] > 2 and _sum_to_one(values):
        gaps = ordered[:, -1] - ordered[:, -2]  # small probabilities are alike in most rows
    return np.asarray(gaps <= tie * _spread(values))


def _spread(values: Array) -> Array:
    """Of each row by itself: beside a few rows of a million, all others would seem undecided."""
    return np.asarray(values.max(axis=1) - values.min(axis=1))


def _sum_to_one(values: Array) -> bool:
    return bool((np.abs(values.sum(axis=1) - 1) < 1e-2).mean() > 0.99)


def _take(answer: Answer, rows: Array) -> Answer:
    if rows.all():
        return answer
    if len(rows) != len(answer.reference):
        return answer
    return Answer(
        answer.name,
        answer.kind,
        answer.reference[rows],
        answer.candidate[rows],
        answer.row_of[rows],
    )


def _flat(pairs: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
    return {
        f"{side}_{name}": value
        for name, pair in pairs.items()
        for side, value in zip(("original", "optimized"), pair, strict=True)
    }
