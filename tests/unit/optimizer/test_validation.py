"""The gate: every rule with a case on either side of it."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.candidate import Verdict
from optimizer.samples import Samples
from optimizer.validation import FEWEST_ROWS, judge
from protos.signature import Signature, TensorSpec
from protos.tensors import Array

ROWS = 200
SEED = 7


def noise(shape: tuple[int, ...], size: float = 1.0, seed: int = SEED) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * np.float32(size)


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32))


def unit(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def texts(labels: Array) -> Array:
    result = np.empty(len(labels), object)
    result[:] = [f"kind {label}".encode() for label in labels]
    return result


def verdict(
    reference: dict[str, Array],
    candidate: dict[str, Array],
    labels: Array | None = None,
    **options: Any,
) -> Verdict:
    rows = len(next(iter(reference.values())))
    inputs = options.pop("inputs", {"X": np.arange(rows, dtype=np.float32)[:, None]})
    samples = Samples(inputs, labels, options.pop("is_real", True))
    outputs = tuple(TensorSpec(name, "FP32", ("batch",)) for name in reference)
    defaults: dict[str, Any] = {
        "task": None,
        "metric": "auto",
        "threshold": 0.99,
        "is_lossless": False,
    }
    return judge(
        reference, candidate, samples, signature=Signature((), outputs), **defaults | options
    )


LOGITS = noise((ROWS, 10), 4.0)
PROBABILITIES = softmax(LOGITS)
CLASSES = LOGITS.argmax(axis=1)
EMBEDDINGS = unit(noise((ROWS, 64)))
AMOUNTS = noise((ROWS,), 30.0) + 1000


def changed(array: Array, row: int | Array, value: object) -> Array:
    array = array.copy()
    array[row] = value
    return array


# --- rules 1 and 2


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        ({}, "output 'y' is missing"),
        ({"y": LOGITS[:, :9]}, r"output 'y': expected shape (200, 10), got (200, 9)"),
        ({"y": CLASSES[:, None].repeat(10, 1)}, "output 'y': expected float32, got int64"),
        ({"y": changed(LOGITS, 17, np.nan)}, "output 'y' has nan in row 17, where the original"),
        ({"y": changed(LOGITS, 3, -np.inf)}, "output 'y' has -inf in row 3, where the original"),
    ],
)
@pytest.mark.parametrize("is_lossless", [True, False])
def test_what_is_missing_or_no_number_is_refused(
    candidate: dict[str, Array], reason: str, is_lossless: bool
) -> None:
    found = verdict({"y": LOGITS}, candidate, is_lossless=is_lossless, threshold=0.0)
    assert not found.is_accepted
    assert found.reason.startswith(reason)


def test_nan_of_the_original_is_no_fault_of_the_candidate() -> None:
    reference = changed(AMOUNTS, 5, np.nan)
    assert verdict({"y": reference}, {"y": reference + noise((ROWS,), 0.01)}).is_accepted
    assert verdict({"y": reference}, {"y": reference}, is_lossless=True).is_accepted
    other = verdict({"y": reference}, {"y": AMOUNTS}, is_lossless=True)
    assert other.reason == "output 'y' is not nan in row 5 as the original"


# --- rule 3: lossless candidates


@pytest.mark.parametrize(
    "reference",
    [LOGITS, PROBABILITIES, EMBEDDINGS, AMOUNTS, AMOUNTS * 1e-9, LOGITS * 1e9, LOGITS + 1e5],
    ids=["logits", "probabilities", "embeddings", "amounts", "tiny", "huge", "offset"],
)
def test_rounding_is_no_difference_at_any_scale(reference: Array) -> None:
    rounding = 1 + noise(reference.shape, 1e-7)
    found = verdict({"y": reference}, {"y": reference * rounding}, is_lossless=True, is_real=False)
    assert found.is_accepted
    assert (found.metric, found.score) == ("exact", 1.0)
    assert found.worst < 1e-3


@pytest.mark.parametrize(
    ("reference", "off", "is_accepted"),
    [
        (AMOUNTS, 0.5e-3, True),
        (AMOUNTS, 4e-3, False),
        (LOGITS, 0.5e-3, True),
        (LOGITS, 4e-3, False),
        (LOGITS.astype(np.float16), 4e-3, True),
        (LOGITS.astype(ml_dtypes.bfloat16), 2e-2, True),
        (LOGITS.astype(ml_dtypes.bfloat16), 2e-1, False),
    ],
)
def test_one_row_beyond_rounding_is_too_much(
    reference: Array, off: float, is_accepted: bool
) -> None:
    size = float(reference.max()) - float(reference.min())
    candidate = changed(reference, 41, (reference[41].astype(np.float32) + off * size))
    found = verdict({"y": reference}, {"y": candidate.astype(reference.dtype)}, is_lossless=True)
    assert found.is_accepted == is_accepted
    if not is_accepted:
        assert "not the same up to rounding: output 'y' is off by" in found.reason
        assert "in row 41" in found.reason


def test_a_wrong_row_of_a_conversion_is_seen_though_the_labels_agree() -> None:
    """StandardScaler and XGBoost in float32: 38 of 569 rows off, labels the same."""
    wrong = PROBABILITIES.copy()
    wrong[9, CLASSES[9]] -= 0.41 * wrong[9, CLASSES[9]]
    both = [{"label": CLASSES, "probabilities": p} for p in (PROBABILITIES, wrong)]
    found = verdict(both[0], both[1], labels=CLASSES, task="classification", is_lossless=True)
    assert not found.is_accepted
    assert "'probabilities'" in found.reason
    assert "row 9" in found.reason


def test_labels_may_differ_only_where_the_original_is_undecided() -> None:
    undecided = changed(PROBABILITIES, 4, [0.5, 0.5] + [0.0] * 8)
    labels = [texts(changed(CLASSES, 4, kind)) for kind in (0, 1)]
    both = [{"label": label, "probabilities": undecided} for label in labels]
    assert verdict(both[0], both[1], task="classification", is_lossless=True).is_accepted
    assert verdict(both[0], both[1], task="classification").score == 1
    both = [{"label": label, "probabilities": PROBABILITIES} for label in labels]
    found = verdict(both[0], both[1], task="classification", is_lossless=True)
    assert "output 'label' differs in 1 of 200 answers, first in row 4" in found.reason


def test_the_threshold_does_not_excuse_a_lossless_candidate() -> None:
    assert not verdict(
        {"y": AMOUNTS}, {"y": noise((ROWS,))}, is_lossless=True, threshold=0.0
    ).is_accepted


def test_constant_outputs_can_be_compared_but_prove_nothing() -> None:
    constant = np.full((ROWS, 5), 0.001, np.float32)
    wiggled = constant * (1 + noise(constant.shape, 1e-7))
    assert verdict({"y": constant}, {"y": wiggled}, is_lossless=True).is_accepted
    assert not verdict({"y": constant}, {"y": constant * 1.01}, is_lossless=True).is_accepted
    found = verdict({"y": constant}, {"y": constant})
    assert found.reason.startswith("cannot validate: the original answers the same in all 200 rows")


def test_outputs_near_zero_can_be_compared_but_prove_nothing() -> None:
    """A detector that finds nothing: cosine says 0.47 for two right answers."""
    first, second = noise((ROWS, 50), 1e-7, 1), noise((ROWS, 50), 1e-7, 2)
    assert verdict({"y": first}, {"y": second}, is_lossless=True).is_accepted
    assert not verdict({"y": first}, {"y": second + 1}, is_lossless=True).is_accepted
    assert verdict({"y": first}, {"y": second}).reason.startswith(
        "cannot validate: no output of the original is larger than"
    )


def test_one_constant_output_beside_a_telling_one_is_no_hindrance() -> None:
    outputs = {"y": LOGITS, "zero": np.zeros((ROWS, 3), np.float32)}
    assert verdict(outputs, outputs).is_accepted


# --- rule 4: lossy candidates need real rows


def test_without_real_rows_only_lossless_candidates_pass() -> None:
    found = verdict({"y": LOGITS}, {"y": LOGITS}, is_real=False)
    assert not found.is_accepted
    assert "no real rows to prove it harmless: give some" in found.reason
    assert found.score == 1
    assert verdict({"y": LOGITS}, {"y": LOGITS}, is_real=False, is_lossless=True).is_accepted


def test_few_rows_prove_nothing() -> None:
    few = LOGITS[: FEWEST_ROWS - 1]
    assert "cannot validate: 31 different rows" in verdict({"y": few}, {"y": few}).reason
    enough = LOGITS[:FEWEST_ROWS]
    assert verdict({"y": enough}, {"y": enough}).is_accepted


def test_a_model_that_always_says_the_same_proves_nothing() -> None:
    label = {"label": np.ones(ROWS, np.int64)}
    assert "answers the same" in verdict(label, label, task="classification").reason


# --- rule 5: no row is far off


@pytest.mark.parametrize(
    ("reference", "garbage"),
    [
        (LOGITS, -LOGITS[13]),
        (PROBABILITIES, np.roll(PROBABILITIES[13], 1)),
        (EMBEDDINGS, EMBEDDINGS[14]),
        (AMOUNTS, AMOUNTS[13] + 100),
    ],
    ids=["logits", "probabilities", "embeddings", "amounts"],
)
def test_one_row_of_garbage_is_refused_however_good_the_mean(
    reference: Array, garbage: Array
) -> None:
    many = np.concatenate([reference] * 5)
    found = verdict({"y": many}, {"y": changed(many, 13, garbage)}, threshold=0.9)
    assert found.score > 0.99
    assert found.reason.startswith("far off in one row:")


def test_labels_vouch_for_more() -> None:
    off = PROBABILITIES.copy()
    top = CLASSES[3]
    off[3, top] -= 0.4
    off[3, (top + 1) % 10] += 0.4
    shown: dict[str, Any] = {"reference": {"y": PROBABILITIES}, "candidate": {"y": off}}
    assert verdict(**shown, labels=CLASSES).is_accepted
    assert "far off in one row" in verdict(**shown).reason


def test_extreme_rows_do_not_hide_the_others() -> None:
    """Poisoned data: what is garbage in ordinary rows is small beside a row of a million."""
    poisoned = np.concatenate([AMOUNTS[:190], AMOUNTS[:10] * 1e6])
    candidate = poisoned.copy()
    candidate[:190] = AMOUNTS[:190].mean()
    found = verdict({"y": poisoned}, {"y": candidate})
    assert not found.is_accepted
    assert found.score < 0.6
    assert found.figures["r2"] > 0.999


# --- rule 6: the score without labels


@pytest.mark.parametrize(
    ("reference", "size", "metric", "is_accepted"),
    [
        (LOGITS, 0.001, "top1", True),
        (LOGITS, 0.8, "top1", False),
        (EMBEDDINGS, 0.0005, "nn1", True),
        (EMBEDDINGS, 0.02, "nn1", False),
        (AMOUNTS, 0.1, "relative_error", True),
        (AMOUNTS, 1.0, "relative_error", False),
        (noise((ROWS, 3, 4, 4)), 0.005, "relative_error", True),
        (noise((ROWS, 3, 4, 4)), 0.05, "relative_error", False),
    ],
)
def test_agreement_is_measured_in_the_terms_of_the_output(
    reference: Array, size: float, metric: str, is_accepted: bool
) -> None:
    candidate = reference + noise(reference.shape, size, seed=1)
    found = verdict({"y": reference}, {"y": candidate})
    assert (found.metric, found.is_accepted) == (metric, is_accepted)
    assert (found.reason == "") == is_accepted
    assert found.original is None


def test_neighbours_change_before_the_cosine_does() -> None:
    """INT8 of a sentence encoder: mean cosine 0.997 is accepted only where cosine is asked."""
    candidate = unit(EMBEDDINGS + noise(EMBEDDINGS.shape, 0.009, seed=1))
    default = verdict({"emb": EMBEDDINGS}, {"emb": candidate})
    asked = verdict({"emb": EMBEDDINGS}, {"emb": candidate}, metric="cosine")
    assert not default.is_accepted
    assert default.metric == "nn1"
    assert default.reason.startswith("nn1 agreement with the original is 0.8")
    assert asked.is_accepted
    assert 0.996 < asked.score < 0.999
    assert asked.figures["worst_cosine"] > 0.98


def test_an_embedding_is_told_by_name_or_length() -> None:
    for name, rows in (("sentence_embedding", EMBEDDINGS * 3), ("y", EMBEDDINGS)):
        assert verdict({name: rows}, {name: rows}).metric == "nn1"
    assert verdict({"y": EMBEDDINGS * 3}, {"y": EMBEDDINGS * 3}).metric == "top1"


def test_tokens_count_one_by_one_and_masked_ones_not_at_all() -> None:
    logits = noise((50, 8, 5), 3.0)
    mask = np.ones((50, 8), np.int64)
    mask[:, 6:] = 0
    candidate = logits.copy()
    candidate[:, 6:] = 99
    both = {"logits": logits}, {"logits": candidate}
    tokens = np.arange(400).reshape(50, 8)
    found = verdict(both[0], both[1], inputs={"ids": tokens, "attention_mask": mask})
    assert found.is_accepted
    assert found.metric == "top1"
    assert not verdict(both[0], both[1]).is_accepted
    flipped = changed(logits, 3, -logits[3])
    found = verdict({"logits": logits}, {"logits": flipped}, threshold=0.5)
    assert found.figures["top1"] == pytest.approx(1 - 8 / 400)
    assert "in row 3" in found.reason


def test_targets_of_a_regressor_have_scales_of_their_own() -> None:
    targets = np.stack([AMOUNTS * 1000, noise((ROWS,), 1.0, 3)], axis=1)
    candidate = targets.copy()
    candidate[:, 1] = 0
    found = verdict({"prediction": targets}, {"prediction": candidate}, task="regression")
    assert not found.is_accepted
    assert "output 'prediction[1]'" in found.reason


def test_the_worst_of_several_outputs_counts() -> None:
    reference = {"start": LOGITS, "end": noise((ROWS, 10), 4.0, 2)}
    candidate = reference | {"end": reference["end"] + noise((ROWS, 10), 0.8, 3)}
    assert not verdict(reference, candidate).is_accepted
    assert verdict(reference, reference).is_accepted


def test_a_label_beside_probabilities_decides() -> None:
    reference = {"label": texts(CLASSES), "probabilities": PROBABILITIES}
    flipped = reference | {"label": texts(np.where(np.arange(ROWS) < 3, 9 - CLASSES, CLASSES))}
    found = verdict(reference, flipped, task="classification")
    assert found.reason == "top1 agreement with the original is 0.9850, at least 0.99 is needed"


def test_a_clusterer_is_compared_with_itself_and_not_with_labels() -> None:
    other_names = (CLASSES + 1) % 10
    outputs = {"label": CLASSES, "scores": LOGITS}
    found = verdict(outputs, outputs, labels=other_names, task="clustering")
    assert found.is_accepted
    assert found.original is None


# --- rule 6: the score with labels


def mistaken(classes: Array, count: int, seed: int = 1) -> Array:
    rows = np.random.default_rng(seed).choice(len(classes), count, replace=False)
    return changed(classes, rows, (classes[rows] + 1) % 10)


@pytest.mark.parametrize(
    ("original", "candidate", "score", "is_accepted"),
    [
        (0, 0, 1.0, True),
        (0, 2, 0.99, True),
        (0, 3, 0.985, False),
        (20, 20, 1.0, True),
        (20, 10, 190 / 180, True),
        (20, 22, 178 / 180, False),
    ],
)
def test_accuracy_is_a_ratio_to_the_original(
    original: int, candidate: int, score: float, is_accepted: bool
) -> None:
    both = [{"label": texts(mistaken(CLASSES, count))} for count in (original, candidate)]
    found = verdict(both[0], both[1], labels=texts(CLASSES), task="classification")
    assert found.metric == "top1"
    assert found.score == pytest.approx(score)
    assert found.is_accepted == is_accepted
    assert found.original == 1 - original / ROWS
    assert found.optimized == 1 - candidate / ROWS


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES,
        CLASSES.astype(np.float64),
        texts(CLASSES),
        np.array([f"kind {label}" for label in CLASSES]),
        (CLASSES + 5) * 3,
    ],
    ids=["numbers", "floats", "bytes", "texts", "other numbers"],
)
def test_classes_are_compared_with_labels_of_any_kind(labels: Array) -> None:
    found = verdict({"y": PROBABILITIES}, {"y": PROBABILITIES}, labels=labels)
    assert (found.metric, found.original) == ("top1", 1.0)


def test_labels_of_another_model_are_not_used() -> None:
    strange = np.arange(ROWS)
    found = verdict({"y": PROBABILITIES}, {"y": PROBABILITIES}, labels=strange)
    assert found.is_accepted
    assert found.original is None


def test_f1_counts_every_class_the_same() -> None:
    truth = np.array([0] * 190 + [1] * 10)
    blind = changed(truth, 190, 0)
    found = verdict({"label": truth}, {"label": blind}, labels=truth, metric="f1")
    assert found.metric == "f1"
    assert found.score < 0.99
    assert verdict({"label": truth}, {"label": blind}, labels=truth).score == 0.995


def test_one_value_is_a_probability_of_yes() -> None:
    yes = (AMOUNTS > 1000).astype(np.int64)
    sure = np.where(yes == 1, 0.9, 0.2).astype(np.float32).reshape(-1, 1)
    found = verdict({"y": sure}, {"y": sure - 0.1}, labels=yes)
    assert (found.metric, found.original, found.optimized) == ("top1", 1.0, 1.0)
    scores = np.where(yes == 1, 3.0, -3.0).astype(np.float32)
    assert verdict({"y": scores}, {"y": scores}, labels=yes, metric="top1").original == 1.0


@pytest.mark.parametrize(
    ("metric", "error", "candidate_error", "score", "is_accepted"),
    [
        ("auto", 10.0, 10.0, 1.0, True),
        ("rmse", 10.0, 10.05, 0.995, True),
        ("rmse", 10.0, 11.0, 0.909, False),
        ("rmse", 10.0, 5.0, 2.0, True),
        ("rmse", 0.0, 1e-4, 1.0, True),
        ("rmse", 0.0, 1.0, 0.0255, False),
        ("r2", 10.0, 10.05, 0.999, True),
        ("r2", 10.0, 11.0, 0.973, False),
    ],
)
def test_errors_of_a_regressor_are_a_ratio_to_the_original(
    metric: str, error: float, candidate_error: float, score: float, is_accepted: bool
) -> None:
    sign = np.where(np.arange(ROWS) % 2, 1, -1)
    both = [{"y": AMOUNTS + sign * off} for off in (error, candidate_error)]
    found = verdict(both[0], both[1], labels=AMOUNTS, metric=metric, task="regression")
    assert found.metric == metric.replace("auto", "rmse")
    assert found.score == pytest.approx(score, rel=0.02)
    assert found.is_accepted == is_accepted


def test_r2_of_a_useless_original_is_no_measure() -> None:
    useless = {"y": noise((ROWS,), 100.0, 5)}
    found = verdict(useless, useless, labels=AMOUNTS, metric="r2")
    assert (found.metric, found.original) == ("r2", None)
    assert found.is_accepted


@pytest.mark.parametrize("metric", ["top1", "f1", "rmse", "r2", "cosine", "relative_error"])
@pytest.mark.parametrize("has_labels", [True, False])
def test_every_metric_can_be_asked_of_every_output(metric: str, has_labels: bool) -> None:
    for output in (LOGITS, EMBEDDINGS, AMOUNTS, noise((ROWS, 4, 5)), CLASSES):
        labels = CLASSES if has_labels else None
        found = verdict({"y": output}, {"y": output}, labels=labels, metric=metric)
        assert found.is_accepted, found.reason


# --- properties

kinds = st.sampled_from([LOGITS, PROBABILITIES, EMBEDDINGS, AMOUNTS])


@given(kinds, st.booleans(), st.floats(1e-3, 1e3))
def test_the_original_is_always_as_good_as_itself(
    output: Array, is_lossless: bool, scale: float
) -> None:
    output = output * np.float32(scale)
    found = verdict({"y": output}, {"y": output}, is_lossless=is_lossless, threshold=1.0)
    assert found.is_accepted
    assert found.score == 1.0
    assert found.worst == 0.0


@given(kinds, st.floats(1e-6, 1.0), st.permutations(range(20)))
def test_the_order_of_rows_does_not_matter(output: Array, size: float, order: list[int]) -> None:
    output = output[:20]
    candidate = output + noise(output.shape, size, seed=1)
    first = verdict({"y": output}, {"y": candidate})
    second = verdict({"y": output[order]}, {"y": candidate[order]})
    assert second.is_accepted == first.is_accepted
    assert second.score == pytest.approx(first.score)
    assert second.worst == pytest.approx(first.worst)


@given(st.sampled_from([LOGITS, AMOUNTS]), st.floats(1e-4, 1e4), st.floats(1e-3, 1.0))
def test_the_unit_of_the_output_does_not_matter(output: Array, unit: float, size: float) -> None:
    factor = np.float32(unit)
    candidate = output + noise(output.shape, size, seed=1)
    first = verdict({"y": output}, {"y": candidate})
    second = verdict({"y": output * factor}, {"y": candidate * factor})
    assert second.score == pytest.approx(first.score, abs=1e-3)
    assert second.worst == pytest.approx(first.worst, rel=0.1)


damage: list[Callable[[Array], Array]] = [
    lambda output: np.roll(output, 1, axis=0),
    lambda output: -output,
    np.zeros_like,
    lambda output: output[::-1].copy(),
]


@given(kinds, st.sampled_from(damage), st.booleans())
def test_garbage_never_passes(
    output: Array, spoil: Callable[[Array], Array], is_lossless: bool
) -> None:
    found = verdict({"y": output}, {"y": spoil(output)}, is_lossless=is_lossless, threshold=0.5)
    assert not found.is_accepted


# --- labels that say nothing


def garbled(seed: int = 3) -> Array:
    """Nearly half the range off in every row, and no longer the original's decisions."""
    off = np.clip(noise(PROBABILITIES.shape, 0.2, seed), -0.45, 0.45)
    return np.asarray(PROBABILITIES + off)


def shuffled(labels: Array) -> Array:
    return np.random.default_rng(5).permutation(labels)


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros(ROWS, np.int64),
        shuffled(CLASSES),
        (CLASSES + 1) % 10,
        shuffled(texts(CLASSES)),
        np.full(ROWS, 777),
        np.random.default_rng(0).random(ROWS),
    ],
    ids=["one class", "shuffled", "permuted", "shuffled texts", "unknown", "amounts"],
)
def test_labels_that_have_nothing_to_do_with_the_answers_excuse_nothing(labels: Array) -> None:
    """Of constant answers, labels of one class say that they are better than the original's."""
    for candidate in (garbled(), np.full_like(PROBABILITIES, 0.1)):
        found = verdict({"y": PROBABILITIES}, {"y": candidate}, labels=labels)
        assert not found.is_accepted
        assert found.original is None
    assert verdict({"y": PROBABILITIES}, {"y": PROBABILITIES}, labels=labels).is_accepted


@pytest.mark.parametrize(
    "labels",
    [shuffled(AMOUNTS), -AMOUNTS, np.full(ROWS, 1000.0), changed(AMOUNTS, 0, np.nan)],
    ids=["shuffled", "negated", "constant", "with NaN"],
)
def test_amounts_that_have_nothing_to_do_with_the_answers_excuse_nothing(labels: Array) -> None:
    """Answers that are drawn to their mean have smaller errors to whatever is unrelated."""
    middle = AMOUNTS.mean()
    candidate = (middle + 0.55 * (AMOUNTS - middle)).astype(np.float32)
    found = verdict({"y": AMOUNTS}, {"y": candidate}, labels=labels, task="regression")
    assert not found.is_accepted
    assert found.original is None


def test_a_few_huge_errors_do_not_hide_the_others() -> None:
    """One target of a thousand times the others, which both miss alike, is all of an RMSE."""
    truth = changed(AMOUNTS, 0, 1e5)
    original = changed(AMOUNTS + noise((ROWS,), 2.0, 3), 0, 6e4)
    candidate = changed(original + np.clip(noise((ROWS,), 14.0, 4), -40, 40), 0, 6e4)
    found = verdict({"y": original}, {"y": candidate}, labels=truth, task="regression")
    assert found.score > 0.999
    assert "its usual error is" in found.reason
    same = verdict({"y": original}, {"y": original}, labels=truth, task="regression")
    assert same.is_accepted


# --- rule 7: what a score hides


def test_copies_of_a_row_are_one_row() -> None:
    rows = np.arange(512) % 20
    inputs = {"x": rows[:, None]}
    found = verdict({"y": LOGITS[rows]}, {"y": LOGITS[rows]}, inputs=inputs)
    assert found.reason.startswith("cannot validate: 20 different rows")


def test_rows_without_an_answer_are_none() -> None:
    reference = changed(AMOUNTS, np.arange(20, ROWS), np.nan)
    found = verdict({"y": reference}, {"y": reference})
    assert found.reason.startswith("cannot validate: 20 different rows")


RARE = np.arange(1000) < 6


@pytest.mark.parametrize("with_labels", [False, True])
def test_a_rare_class_that_is_lost_is_a_fault(with_labels: bool) -> None:
    """99.4 % of the answers are the same; all that the model was made to find is gone."""
    scores = np.where(RARE, 0.6, 0.1).astype(np.float32)[:, None] + noise((1000, 1), 0.01)
    both = np.concatenate([1 - scores, scores], axis=1)
    candidate = both.copy()
    candidate[RARE] = [0.52, 0.48]
    labels = RARE.astype(np.int64) if with_labels else None
    found = verdict({"y": both}, {"y": candidate}, labels=labels)
    assert found.score > 0.99
    assert "of 6 answers of class 1" in found.reason
    assert "6 are lost" in found.reason


def test_one_and_the_same_decision_puts_nothing_to_the_test() -> None:
    """The scores must move with the rows as the original's do: constant ones decide as well."""
    logits = np.array([8.0, -8.0, -9.0], np.float32) + noise((ROWS, 3), 0.5)
    constant = np.broadcast_to(logits.mean(axis=0), logits.shape)
    found = verdict({"y": logits}, {"y": np.ascontiguousarray(constant)})
    assert found.score == 1
    assert "the same in all but 0 rows" in found.reason
    assert verdict({"y": logits}, {"y": logits + noise(logits.shape, 0.02, 1)}).is_accepted
    labels = {"label": changed(np.zeros(ROWS, np.int64), 7, 1)}
    assert "the same in all but 1 rows" in verdict(labels, labels).reason
    beside = labels | {"scores": logits}
    assert verdict(beside, beside).is_accepted


def test_several_labels_of_a_row_are_compared() -> None:
    labels = {"mask": np.random.default_rng(0).integers(0, 5, (ROWS, 30))}
    assert verdict(labels, labels).is_accepted
    assert not verdict(labels, {"mask": np.roll(labels["mask"], 1, axis=1)}).is_accepted


@pytest.mark.parametrize("task", [None, "classification"])
def test_every_label_decides(task: str | None) -> None:
    reference = {"label_color": texts(CLASSES), "label_size": texts(CLASSES % 3)}
    candidate = reference | {"label_size": texts((CLASSES + 1) % 3)}
    assert not verdict(reference, candidate, task=task).is_accepted
    assert not verdict(reference, candidate, task=task, labels=texts(CLASSES)).is_accepted
    assert verdict(reference, reference, task=task, labels=texts(CLASSES)).is_accepted


@pytest.mark.parametrize(
    ("beside", "other"),
    [
        (LOGITS, LOGITS + noise(LOGITS.shape, 1.0, 1)),
        (np.full((ROWS, 4), 2.0, np.float32), np.full((ROWS, 4), 2.5, np.float32)),
        (np.zeros((ROWS, 4), np.float32), np.full((ROWS, 4), 0.3, np.float32)),
    ],
    ids=["moving", "constant", "zero"],
)
def test_outputs_beside_the_one_that_decides_are_compared(beside: Array, other: Array) -> None:
    reference = {"label": texts(CLASSES), "probabilities": PROBABILITIES, "other": beside}
    found = verdict(reference, reference | {"other": other}, task=None)
    assert found.score == 1
    assert "output 'other' is off by" in found.reason
    assert verdict(reference, reference | {"other": beside + 1e-5}, task=None).is_accepted


def test_rows_that_come_alone_count_by_themselves() -> None:
    outputs = {"label": texts(CLASSES)}
    wrong = {"label": texts(np.where(np.arange(ROWS) < 6, CLASSES + 1, CLASSES))}
    found = verdict(outputs, wrong, threshold=0.96, alone=8)
    assert found.score == 0.97
    assert "of 8 rows that came one at a time, 6 answers differ" in found.reason
    assert verdict(outputs, wrong, threshold=0.96).is_accepted
