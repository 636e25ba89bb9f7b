"""The gate: does a candidate answer as the original does? A pure function of both answers.

The rules, in this order; the first that is broken refuses the candidate and is its reason:

1. It has the original's outputs, in their shapes.
2. It has no NaN and no infinity where the original has numbers.
3. A lossless candidate (same arithmetic up to rounding) differs in no row by more than
   `SAME_UP_TO_ROUNDING` of the output's range, and flips no label the original was sure of. That
   is all that can be asked on made-up rows, and the only way to pass on them.
4. A lossy candidate needs real rows, at least `FEWEST_ROWS` that differ, on which the original's
   outputs vary: of outputs that are constant or near zero nothing can be said.
5. No row is far off, however good the mean: `FAR_OFF` of the range, `FAR_OFF_WITH_LABELS` where
   labels vouch for the candidate, `WORST_COSINE` of an embedding.
6. The score is at least the threshold (`agreement.py` says what the score is). Embeddings need
   both their neighbours and their mean cosine.
7. Nothing hides behind the score: a lost class, rows that come alone, an answer that is always the
   same, answers that only labels excuse, outputs that do not decide (`blind_spots.py`).

Ranges are those of `differences.py`: never a cosine alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from optimizer.agreement import Score, label_flips, score
from optimizer.answers import Answer, deciding, is_float, read_answers
from optimizer.blind_spots import (
    hidden_by_outliers,
    lost_alone,
    lost_class,
    neglected,
    one_answer,
)
from optimizer.calibration import groups_of
from optimizer.candidate import Verdict
from optimizer.differences import (
    Difference,
    columns,
    difference,
    finite_answers,
    lost_number,
    strange_number,
)
from optimizer.frameworks.contract import Task
from optimizer.goal import Metric
from optimizer.samples import Samples
from protos.signature import Signature
from protos.tensors import Array

SAME_UP_TO_ROUNDING: Mapping[str, float] = {"float16": 1e-2, "bfloat16": 5e-2}
"""Of the range, by the dtype of the output; others: `_SAME`."""
_SAME = 1e-3
_SAME_NEAR_ZERO = 1e-6  # absolute, where it is near zero
FAR_OFF = 0.25
FAR_OFF_WITH_LABELS = 0.5
WORST_COSINE = 0.9
FEWEST_ROWS = 32
"""Of those that differ: a candidate that is wrong in one row of ten passes eight rows easily."""


@dataclass(frozen=True, slots=True)
class _Case:
    """What the rules look at."""

    answers: list[Answer]
    deciding: list[Answer]
    differences: list[Difference]
    samples: Samples
    metric: Metric
    threshold: float
    alone: int


def judge(
    reference: Mapping[str, Array],
    candidate: Mapping[str, Array],
    samples: Samples,
    *,
    task: Task | None,
    metric: Metric,
    threshold: float,
    is_lossless: bool,
    signature: Signature,
    alone: int = 0,
) -> Verdict:
    """Whether the candidate's outputs for `samples` will do for the original's.

    Outputs are by name, dimension 0 in the order of the samples' rows, of which the first `alone`
    were answered one at a time. Takes time by the square of
    the rows for embeddings (at most 2048 are compared). `reason` is empty where it is accepted.
    """
    fault = _misfit(reference, candidate)
    if fault:
        return Verdict(False, "exact", 0.0, threshold, rows=samples.rows, reason=fault)
    answers = read_answers(reference, candidate, samples, task, metric)
    strange = _first_fault(strange_number(answer) for answer in answers if answer.is_float)
    if strange:
        return Verdict(False, "exact", 0.0, threshold, rows=samples.rows, reason=strange)
    differences = [difference(part) for answer in answers for part in _parts(answer)]
    decides = deciding(answers, signature, task)
    case = _Case(answers, decides, differences, samples, metric, threshold, alone)
    return _lossless(case) if is_lossless else _lossy(case)


def _misfit(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> str:
    """Rule 1."""
    for name, wanted in reference.items():
        if name not in candidate:
            return f"output '{name}' is missing"
        given = candidate[name]
        if given.shape != wanted.shape:
            return f"output '{name}': expected shape {wanted.shape}, got {given.shape}"
        if is_float(given) != is_float(wanted):
            return f"output '{name}': expected {wanted.dtype}, got {given.dtype}"
    return ""


def _parts(answer: Answer) -> list[Answer]:
    """What has a range of its own."""
    if not answer.is_float:
        return []
    return columns(answer) if answer.kind == "values" else [answer]


def _lossless(case: _Case) -> Verdict:
    """Rule 3."""
    reason = _first_fault(
        _not_same(found, dtype)
        for found, dtype in zip(case.differences, _dtypes(case.answers), strict=True)
    )
    reason = reason or _first_fault(lost_number(a) for a in case.answers if a.is_float)
    reason = reason or _first_fault(_flipped(a, case.answers) for a in case.answers)
    worst = max((found.worst for found in case.differences), default=0.0)
    agreement = _scored(case)
    figures = _figures(case, agreement)
    value = 1.0
    if reason:
        value = min(1 - min(worst, 1.0), agreement.value if agreement else 0.0)
    original = agreement.original if agreement else None
    optimized = agreement.optimized if agreement else None
    return _verdict(case, Score("exact", value, original, optimized, figures), reason)


def _not_same(found: Difference, dtype: str) -> str:
    limit = SAME_UP_TO_ROUNDING.get(dtype, _SAME)
    if found.worst <= limit:
        return ""
    if found.is_near_zero and found.largest_difference <= _SAME_NEAR_ZERO:
        return ""
    return (
        f"not the same up to rounding: output '{found.name}' is off by {found.worst:.3g} of its"
        f" range in row {found.worst_row}, at most {limit:g} is allowed"
    )


def _flipped(answer: Answer, answers: list[Answer]) -> str:
    if answer.is_float:
        return ""
    rows = label_flips(answer, answers, tie=2 * _SAME)
    if not len(rows):
        return ""
    return (
        f"not the same up to rounding: output '{answer.name}' differs in {len(rows)} of"
        f" {len(answer.reference)} answers, first in row {rows[0]}"
    )


def _lossy(case: _Case) -> Verdict:
    """Rules 4 to 7."""
    found = _scored(case)
    if found is None:
        return _verdict(case, Score("exact", 0.0), "cannot validate: there is no finite output")
    found = Score(found.metric, found.value, found.original, found.optimized, _figures(case, found))
    reason = _unprovable(case) or _far_off(case, found) or _low_score(case, found)
    return _verdict(case, found, reason or _hidden(case, found))


def _unprovable(case: _Case) -> str:
    """Rule 4."""
    if not case.samples.is_real:
        return (
            "changes the arithmetic, and there are no real rows to prove it harmless: give some"
            f" that the model was made for (at least {FEWEST_ROWS}, better several hundred)"
        )
    rows = _usable_rows(case)
    if rows < FEWEST_ROWS:
        return (
            f"cannot validate: {rows} different rows that the original answers, at least"
            f" {FEWEST_ROWS} are needed"
        )
    if any(_is_telling(answer, case.differences) for answer in case.deciding):
        return ""
    if all(found.is_near_zero for found in case.differences) and case.differences:
        largest = max(found.largest for found in case.differences)
        return f"cannot validate: no output of the original is larger than {largest:.3g}"
    return (
        f"cannot validate: the original answers the same in all {case.samples.rows} rows,"
        " so any candidate would seem right"
    )


def _usable_rows(case: _Case) -> int:
    """Those that differ, and have a finite answer; copies prove nothing."""
    is_usable = np.zeros(case.samples.rows, bool)
    for answer in case.deciding:
        finite = finite_answers(answer) if answer.is_float else np.ones(len(answer.row_of), bool)
        is_usable[answer.row_of[finite]] = True
    return len(np.unique(groups_of(case.samples)[is_usable]))


def _is_telling(answer: Answer, differences: list[Difference]) -> bool:
    if answer.is_float:
        parts = {part.name for part in _parts(answer)}
        return any(found.is_telling for found in differences if found.name in parts)
    if any(found.is_telling for found in differences):
        return True  # the scores beside a label
    first = answer.reference[0]
    return any(bool((row != first).any()) for row in answer.reference)


def _far_off(case: _Case, found: Score) -> str:
    """Rule 5."""
    cosine = found.figures.get("worst_cosine", 1.0)
    if cosine < WORST_COSINE:
        return f"far off in one row: cosine {cosine:.4f}, at least {WORST_COSINE} is needed"
    limit = FAR_OFF if found.original is None else FAR_OFF_WITH_LABELS
    worst = max((d for d in case.differences if d.is_telling), key=_by_worst, default=None)
    if worst is None or worst.worst <= limit:
        return ""
    return (
        f"far off in one row: output '{worst.name}' by {worst.worst:.3g} of its range in row"
        f" {worst.worst_row}, at most {limit:g} is allowed"
    )


def _low_score(case: _Case, found: Score) -> str:
    """Rule 6."""
    if found.value >= case.threshold:
        return ""
    if found.original is None:
        return (
            f"{found.metric} agreement with the original is {found.value:.4f},"
            f" at least {case.threshold:g} is needed"
        )
    return (
        f"{found.metric} is {found.optimized:.4f} where the original reaches"
        f" {found.original:.4f}: {found.value:.4f} of it, at least {case.threshold:g} is needed"
    )


def _hidden(case: _Case, found: Score) -> str:
    """Rule 7."""
    labels = case.samples.labels if found.original is not None else None
    names = {part.name for answer in case.deciding for part in _parts(answer)}
    largest = max((difference.largest for difference in case.differences), default=0.0)
    per_row = [answer for answer in case.deciding if answer.is_per_row]
    others = [answer for answer in case.deciding if not answer.is_per_row]
    threshold = case.threshold
    return (
        _first_fault(lost_class(a, case.answers, labels, threshold) for a in per_row)
        or _first_fault(lost_class(a, case.answers, None, threshold) for a in others)
        or _first_fault(lost_alone(a, case.answers, case.alone, threshold) for a in case.deciding)
        or _first_fault(one_answer(a, case.answers, threshold) for a in case.deciding)
        or _first_fault(
            hidden_by_outliers(a, labels, threshold) for a in per_row if labels is not None
        )
        or _first_fault(
            neglected(difference, largest, threshold)
            for difference in case.differences
            if difference.name not in names or not difference.is_telling
        )
    )


def _scored(case: _Case) -> Score | None:
    """The score of the output that is worst off."""
    scores = [
        score(answer, case.answers, case.samples.labels, case.metric)
        for answer in case.deciding
        if _has_finite(answer)
    ]
    return min(scores, key=lambda found: found.value, default=None)


def _has_finite(answer: Answer) -> bool:
    if not answer.is_float:
        return True
    return any(bool(np.isfinite(row.astype(np.float64)).all()) for row in answer.reference)


def _figures(case: _Case, found: Score | None) -> dict[str, float]:
    """Everything measured: of the score, and the worst row of every output."""
    figures = dict(found.figures) if found else {}
    for output in case.differences:
        figures[f"worst_of_{output.name}"] = output.worst
    worst = max(case.differences, key=_by_worst, default=None)
    if worst is not None:
        figures["worst_row"] = float(worst.worst_row)
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def _verdict(case: _Case, found: Score, reason: str) -> Verdict:
    return Verdict(
        not reason,
        found.metric,
        found.value,
        case.threshold,
        found.original,
        found.optimized,
        max((output.worst for output in case.differences), default=0.0),
        case.samples.rows,
        reason,
        found.figures,
    )


def _by_worst(found: Difference) -> float:
    return found.worst


def _dtypes(answers: list[Answer]) -> list[str]:
    return [answer.reference.dtype.name for answer in answers for _ in _parts(answer)]


def _first_fault(faults: Iterable[str]) -> str:
    return next((fault for fault in faults if fault), "")
