"""Made-up rows on which a wrong conversion of a fitted model would show.

Drawn backwards: values that matter to the last step (its own thresholds, support vectors, centers),
taken back through the steps before it by their inverses. Where a step has none, from what the step
knows of its own input: the categories of an encoder, the mean and scale of a scaler.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optimizer.frameworks.columns import Table
from optimizer.frameworks.thresholds import Thresholds, categories_of, thresholds_of
from protos.tensors import Array

_MISSING_SHARE = 0.05
_UNKNOWN_SHARE = 0.1
_UNKNOWN_TEXT = "no such category"
_WORDS = 12  # of a made-up text, at most
_KNOWN_ROWS = ("support_vectors_", "_fit_X", "X_train_", "cluster_centers_", "means_", "theta_")


def typical_table(estimator: Any, table: Table, rows: int, seed: int) -> Array:
    """object[rows, columns]: floats, str, and what is missing; the same for the same seed."""
    generator = np.random.default_rng(seed)
    found = _Maker(generator, rows).before(estimator, None)
    if found is None or found.shape[1] != len(table.columns):
        found = generator.standard_normal((rows, len(table.columns)))
    result = found.astype(object)
    for index, column in enumerate(table.columns):
        is_text = np.array([isinstance(value, str) for value in result[:, index]])
        if column.is_text and not is_text.any():
            result[:, index] = [f"word {value}" for value in generator.integers(0, 10, rows)]
        if not column.is_text:
            numbers = [np.nan if value is None else value for value in result[:, index]]
            result[:, index] = np.asarray(numbers, dtype=np.float32).astype(np.float64)
    return result


def near_thresholds(
    thresholds: Thresholds, features: int, rows: int, generator: np.random.Generator
) -> Array:
    """float64[rows, features] on, just below and just above thresholds, and between them."""
    result = generator.standard_normal((rows, features))
    for feature, values in thresholds.items():
        if feature >= features:
            continue
        chosen = generator.choice(values, rows).astype(np.float32)
        low, high = (np.nextafter(chosen, np.float32(end)) for end in (-np.inf, np.inf))
        span = float(np.ptp(values)) or abs(float(values[0])) or 1.0
        beside = chosen + span * 0.2 * generator.standard_normal(rows)
        kind = generator.integers(0, 4, rows)
        result[:, feature] = np.choose(kind, [chosen, low, high, beside])
    return result


def with_codes(rows: Array, codes: Thresholds, generator: np.random.Generator) -> None:
    """Writes codes of categories into their columns: whole numbers, one of them no category."""
    for feature, known in codes.items():
        rows[:, feature] = generator.integers(0, int(known.max()) + 2, len(rows))


def with_missing(rows: Array, generator: np.random.Generator, missing: Any = np.nan) -> Array:
    """A copy with some values missing."""
    result = rows.copy()
    result[generator.random(rows.shape) < _MISSING_SHARE] = missing
    return result


class _Maker:
    """Goes through a fitted model from its end to its beginning."""

    def __init__(self, generator: np.random.Generator, rows: int) -> None:
        self._random = generator
        self._rows = rows
        # By what marks a kind of step; the first that fits counts.
        self._makers: Mapping[str, Callable[[Any, Array | None], Array | None]] = {
            "best_estimator_": lambda step, wanted: self.before(step.best_estimator_, wanted),
            "steps": self._before_steps,
            "transformers_": self._before_columns,
            "transformer_list": lambda step, _: self.before(step.transformer_list[0][1], None),
            "build_analyzer": lambda step, _: self._texts(step),
            "categories_": lambda step, _: self._categories(step),
            "statistics_": self._before_imputer,
            "predict": lambda step, _: self._for_estimator(step),
        }

    def before(self, step: Any, wanted: Array | None) -> Array | None:
        """Rows for a step's input that lead to the `wanted` output, where that can be had."""
        if step is None or isinstance(step, str):  # "passthrough", "drop"
            return wanted
        for trait, maker in self._makers.items():
            if hasattr(step, trait):
                return maker(step, wanted)
        return self._before_transformer(step, wanted)

    def _before_steps(self, step: Any, wanted: Array | None) -> Array | None:
        for _, inner in reversed(step.steps):
            wanted = self.before(inner, wanted)
        return wanted

    def _before_columns(self, step: Any, wanted: Array | None) -> Array:
        result = self._random.standard_normal((self._rows, step.n_features_in_)).astype(object)
        for name, transformer, _ in step.transformers_:
            columns = list(step._transformer_to_input_indices.get(name, []))
            place = step.output_indices_[name]
            part = None if wanted is None else wanted[:, place]
            if not columns or transformer == "drop":
                continue
            found = self.before(transformer, part)
            if found is not None and found.shape[1] == len(columns):
                result[:, columns] = found
        return result

    def _before_transformer(self, step: Any, wanted: Array | None) -> Array:
        if wanted is None:
            wanted = self._random.standard_normal((self._rows, _outputs_of(step)))
        try:
            found = np.asarray(step.inverse_transform(wanted.astype(np.float64)))
        except Exception:  # no inverse, or not of these values: anything will do
            found = np.empty(0)
        if found.shape != (self._rows, step.n_features_in_) or not np.isfinite(found).any():
            return self._random.standard_normal((self._rows, step.n_features_in_)) + 0.5
        missing = np.isnan(wanted).any(axis=1) & ~np.isnan(found).any(axis=1)
        found[missing, 0] = np.nan
        return found

    def _before_imputer(self, step: Any, wanted: Array | None) -> Array:
        count = len(step.statistics_)
        if wanted is None or wanted.shape[1] != count:
            wanted = self._random.standard_normal((self._rows, count)).astype(object)
            for column, statistic in enumerate(step.statistics_):
                if isinstance(statistic, str):
                    wanted[:, column] = statistic
        return with_missing(wanted.astype(object), self._random, step.missing_values)

    def _categories(self, step: Any) -> Array:
        columns = [self._of_one_encoder(step, values) for values in step.categories_]
        return np.stack(columns, axis=1)

    def _of_one_encoder(self, step: Any, categories: Array) -> Array:
        values = categories.astype(object)[self._random.integers(0, len(categories), self._rows)]
        is_text = any(isinstance(value, str) for value in categories.tolist())
        if getattr(step, "handle_unknown", "ignore") != "error":
            unknown = self._random.random(self._rows) < _UNKNOWN_SHARE
            numbers = [] if is_text else [v for v in categories.tolist() if not math.isnan(v)]
            values[unknown] = _UNKNOWN_TEXT if is_text else max(numbers, default=0) + 1
        return np.asarray(values)

    def _texts(self, step: Any) -> Array:
        words = [*sorted(getattr(step, "vocabulary_", {})), _UNKNOWN_TEXT]
        texts = [
            " ".join(self._random.choice(words, self._random.integers(1, _WORDS)))
            for _ in range(self._rows)
        ]
        return np.array(texts, dtype=object).reshape(-1, 1)

    def _for_estimator(self, step: Any) -> Array | None:
        features = getattr(step, "n_features_in_", 0)
        members = [m for m in _members(step) if hasattr(m, "steps") or hasattr(m, "categories_")]
        if members:
            return self.before(members[0], None)
        if getattr(step, "_preprocessor", None) is not None:
            return self.before(step._preprocessor, None)
        thresholds, codes = thresholds_of(step), categories_of(step)
        if thresholds or codes:
            rows = near_thresholds(thresholds, features, self._rows, self._random)
            with_codes(rows, codes, self._random)
            return with_missing(rows, self._random) if _accepts_missing(step) else rows
        return self._around_known(step, features)

    def _around_known(self, step: Any, features: int) -> Array:
        """Near rows that the model remembers of its training; else of several magnitudes."""
        for name in _KNOWN_ROWS:
            known: Any = getattr(step, name, None)
            if hasattr(known, "toarray"):
                known = known.toarray()
            if isinstance(known, np.ndarray) and known.ndim == 2 and known.shape[1] == features:
                chosen = known[self._random.integers(0, len(known), self._rows)]
                noise = known.std(axis=0) * self._random.standard_normal(chosen.shape)
                return np.asarray(chosen + 0.3 * noise)
        magnitude = self._random.choice([0.3, 1.0, 3.0], (self._rows, 1))
        values = self._random.standard_normal((self._rows, features)) * magnitude
        return np.asarray(np.abs(values) if _wants_positive(step) else values)


def _members(step: Any) -> list[Any]:
    members = getattr(step, "estimators_", ())
    return list(np.ravel(members)) if isinstance(members, np.ndarray) else list(members)


def _outputs_of(step: Any) -> int:
    for name in ("n_components_", "_n_features_out"):
        if hasattr(step, name):
            return int(getattr(step, name))
    return int(getattr(step, "n_features_in_", 1))


def _accepts_missing(step: Any) -> bool:
    if hasattr(step, "get_booster") or hasattr(step, "booster_"):
        return True
    return bool(_tags(step).allow_nan)


def _wants_positive(step: Any) -> bool:
    return bool(_tags(step).positive_only)


def _tags(step: Any) -> Any:
    from sklearn.utils import get_tags  # noqa: PLC0415

    return get_tags(step).input_tags
