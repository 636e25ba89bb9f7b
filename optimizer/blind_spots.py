"""What a good score can hide: pure functions, each empty or the reason to refuse a candidate.

A score is a mean over rows. It does not see a rare class that is never answered any more, a model
that always gives the answer that happens to be right for all rows there are, errors that labels
excuse though the answers are hardly the original's, and outputs that nobody decides by.
"""

import numpy as np

from optimizer import metrics
from optimizer.agreement import decisions, named_decisions, settled
from optimizer.answers import Answer, Kind
from optimizer.differences import Difference, difference, finite_answers
from protos.tensors import Array

LEEWAY = 10
"""Times as far off as the threshold allows the mean: what is allowed where it is not looked at."""
_NOTHING = 0.01  # of the largest value of all outputs: what may be where nothing was
_FEW = 2  # rows: one or two may differ by chance


def lost_class(
    answer: Answer, answers: list[Answer], labels: Array | None, threshold: float
) -> str:
    """A class that the candidate mostly answers otherwise, however rare it is.

    With labels: one that it is no longer right about where the original is.
    """
    if not _decides(answer):
        return ""
    named = None if labels is None else named_decisions(answer, labels)
    if labels is None or named is None:
        truth = decisions(answer)[0]
        lost_rows = 1 - settled(answer, answers).astype(int)
    else:
        truth = labels
        right = [metrics.same(labels, side).astype(int) for side in named]
        lost_rows = right[0] - right[1]
    classes, codes = np.unique(metrics.comparable(truth, truth)[0], return_inverse=True)
    rows = np.bincount(codes, minlength=len(classes))
    lost = np.bincount(codes, weights=lost_rows, minlength=len(classes))
    limits = _FEW + _leeway(threshold) * rows
    worst = int(np.argmax(lost - limits))
    if lost[worst] <= limits[worst]:
        return ""
    return (
        f"output '{answer.name}': of {rows[worst]} answers of class {classes[worst]}"
        f" {lost[worst]:.0f} are lost, at most {int(limits[worst])} may be"
    )


def lost_alone(answer: Answer, answers: list[Answer], alone: int, threshold: float) -> str:
    """Rows that were answered one at a time, as most requests are: few beside all the others."""
    if not _decides(answer):
        return ""
    is_alone = answer.row_of < alone
    lost = int(np.sum(is_alone & ~settled(answer, answers)))
    if lost <= _FEW + _leeway(threshold) * int(is_alone.sum()):
        return ""
    return f"output '{answer.name}': of {alone} rows that came one at a time, {lost} answers differ"


def one_answer(answer: Answer, answers: list[Answer], threshold: float) -> str:
    """A decision that the rows do not put to the test, and no scores beside it that they do."""
    if not _decides(answer) or (answer.is_float and not difference(answer).is_telling):
        return ""
    others = len(answer.reference) - _most_common(answer)
    if others > _FEW:
        return ""
    scores = [a for a in answers if a.is_float and (a is answer or not answer.is_float)]
    known = [share for a in scores if np.isfinite(share := _explained(a))]
    least = 1 - _leeway(threshold)
    if known and min(known) >= least:
        return ""
    answers_same = f"output '{answer.name}' of the original is the same in all but {others} rows"
    if not known:
        return f"cannot validate: {answers_same}"
    return (
        f"{answers_same}, and what distinguishes its scores from row to row is kept to"
        f" {max(min(known), 0.0):.4f}, at least {least:g} is needed"
    )


def hidden_by_outliers(answer: Answer, labels: Array, threshold: float) -> str:
    """Errors of ordinary rows, which say nothing in a mean of squares with a few huge ones."""
    limit = _leeway(threshold)
    is_amount = answer.kind is Kind.VALUES and answer.reference.shape[1] == 1
    if not is_amount or labels.dtype.kind not in "biuf":
        return ""
    off = difference(answer).mean
    usual = [
        float(np.nanmedian(np.abs(side[:, 0].astype(np.float64) - labels)))
        for side in (answer.reference, answer.candidate)
    ]
    if off <= limit or usual[1] * (1 - limit) <= usual[0]:
        return ""
    return (
        f"output '{answer.name}' is off by {off:.3g} of its spread in the mean, and its usual error"
        f" is {usual[1]:.4g} where that of the original is {usual[0]:.4g}"
    )


def neglected(found: Difference, largest: float, threshold: float) -> str:
    """An output beside the one that decides, or one that never changes, that is not what it was.

    `largest`: of all outputs of the original.
    """
    if found.is_near_zero:
        is_off, kind = found.largest_difference > _NOTHING * largest, "largest value"
        off, limit = found.largest_difference / (largest or 1.0), _NOTHING
    else:
        off, limit, kind = found.mean, _leeway(threshold), "spread in the mean"
        is_off = off > limit
    if not is_off:
        return ""
    return (
        f"output '{found.name}' is off by {off:.3g} of the {kind}, at most {limit:.3g} is allowed"
    )


def _leeway(threshold: float) -> float:
    return LEEWAY * (1 - threshold)


def _most_common(answer: Answer) -> int:
    """How many answers of the original are the one that it gives most often."""
    said = answer.reference if answer.kind is Kind.LABEL else decisions(answer)[0][:, None]
    texts = metrics.comparable(said, said)[0]
    return int(np.unique(texts, axis=0, return_counts=True)[1].max())


def _decides(answer: Answer) -> bool:
    return answer.kind in (Kind.LABEL, Kind.CLASSES, Kind.BINARY)


def _explained(answer: Answer) -> float:
    """The share of what varies from row to row that the candidate keeps; NaN where nothing does."""
    usable = finite_answers(answer)
    if not usable.any():
        return float("nan")
    return metrics.r2(answer.reference[usable], answer.candidate[usable])
