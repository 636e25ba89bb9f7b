"""Which inputs a fitted scikit-learn model has: one matrix, or one input per column.

The fitted model tells by its encoders, imputers and vectorizers which columns are text, and what
it takes for a missing text. An empty text stands for it in requests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimizer.samples import Samples
from protos.signature import TensorSpec
from protos.tensors import Array

MATRIX = "X"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table a model was fitted on."""

    name: str
    is_text: bool = False
    missing: Any = ""  # of a text column: what an empty text stands for


@dataclass(frozen=True, slots=True)
class Table:
    """The columns, and how they come and go."""

    columns: tuple[Column, ...]
    is_frame: bool  # the model was fitted on a DataFrame, and looks at its columns' names
    is_text_list: bool = False  # the model takes a list of texts (a vectorizer comes first)
    is_narrow: bool = False  # the model takes float32 alone, as it was fitted on

    @property
    def is_matrix(self) -> bool:
        """Whether all columns come as one input: they are of one kind, or have no names."""
        kinds = {column.is_text for column in self.columns}
        return kinds == {False} or (len(kinds) == 1 and not self.is_frame)

    def inputs(self) -> tuple[TensorSpec, ...]:
        if self.is_matrix:
            datatype = "BYTES" if self.columns[0].is_text else "FP32"
            return (TensorSpec(MATRIX, datatype, ("batch", len(self.columns))),)
        return tuple(
            TensorSpec(column.name, "BYTES" if column.is_text else "FP32", ("batch", 1))
            for column in self.columns
        )

    def read(self, inputs: Mapping[str, Array]) -> Any:
        """What the model's `predict` takes: float64 as it was fitted on, texts as str."""
        if self.is_matrix and not self.columns[0].is_text:
            return self._numbers(inputs[MATRIX])
        columns = self._by_column(inputs)
        if self.is_text_list:
            return columns[self.columns[0].name]
        if self.is_frame:
            import pandas as pd  # noqa: PLC0415

            return pd.DataFrame(columns)
        return np.stack([column.astype(object) for column in columns.values()], axis=1)

    def write(self, rows: Array) -> dict[str, Array]:
        """The inputs of a request from object[rows, columns] of floats, str and missing values."""
        columns = [
            _texts(rows[:, index]) if column.is_text else rows[:, index].astype(np.float32)
            for index, column in enumerate(self.columns)
        ]
        if self.is_matrix:
            return {MATRIX: np.stack(columns, axis=1)}
        return {
            column.name: values.reshape(-1, 1)
            for column, values in zip(self.columns, columns, strict=True)
        }

    def _numbers(self, matrix: Array) -> Any:
        numbers = matrix.astype(np.float32 if self.is_narrow else np.float64)
        if not self.is_frame:
            return numbers
        import pandas as pd  # noqa: PLC0415

        return pd.DataFrame(numbers, columns=[column.name for column in self.columns])

    def _by_column(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for index, column in enumerate(self.columns):
            whole = inputs[MATRIX] if self.is_matrix else inputs[column.name]
            values = whole[:, index] if self.is_matrix else whole.reshape(-1)
            found[column.name] = (
                _strings(values, column.missing) if column.is_text else values.astype(np.float64)
            )
        return found


def table_of(estimator: Any, samples: Samples | None = None) -> Table:
    """The columns of a fitted estimator.

    Args:
        estimator: Anything with scikit-learn's interface.
        samples: Rows whose types decide where the estimator does not say.
    """
    if _is_vectorizer(_first_step(estimator)):
        return Table((Column("text", True),), is_frame=False, is_text_list=True)
    names = getattr(estimator, "feature_names_in_", None)
    count = len(names) if names is not None else int(estimator.n_features_in_)
    facts = _Facts({}, set())
    _visit(estimator, range(count), facts)
    found = [str(name) for name in names] if names is not None else _numbered(count)
    columns = [_column(name, index, facts, samples) for index, name in enumerate(found)]
    is_frame = names is not None and not _has_pandas_categories(estimator)
    return Table(tuple(columns), is_frame, is_narrow=_has_narrow_centers(estimator))


def _has_narrow_centers(estimator: Any) -> bool:
    """Whether clusters were found in float32: such a model refuses float64."""
    steps = getattr(estimator, "steps", None)
    centers = getattr(steps[-1][1] if steps else estimator, "cluster_centers_", None)
    return centers is not None and centers.dtype == np.float32


def _has_pandas_categories(estimator: Any) -> bool:
    """Whether a booster learnt from columns of categories: their codes come as numbers."""
    if hasattr(estimator, "booster_"):
        return bool(estimator.booster_.pandas_categorical)
    if hasattr(estimator, "get_booster"):
        return "c" in (estimator.get_booster().feature_types or ())
    return False


@dataclass(slots=True)
class _Facts:
    texts: dict[int, Any]  # column -> what is missing there
    numbers: set[int]


def _numbered(count: int) -> list[str]:
    return [f"x{index}" for index in range(count)]


def _column(name: str, index: int, facts: _Facts, samples: Samples | None) -> Column:
    if index in facts.texts:
        return Column(name, True, facts.texts[index])
    if index in facts.numbers or samples is None or name not in samples.inputs:
        return Column(name)
    return Column(name, samples.inputs[name].dtype.kind in "OSU")


def _visit(estimator: Any, columns: Sequence[int], facts: _Facts) -> None:
    """Notes what a step says of the columns it is given."""
    if hasattr(estimator, "steps"):
        _visit_steps([step for _, step in estimator.steps], columns, facts)
    elif hasattr(estimator, "transformers_"):
        for name, transformer, _ in estimator.transformers_:
            inside = estimator._transformer_to_input_indices.get(name, [])
            _visit(transformer, [columns[index] for index in inside], facts)
    elif hasattr(estimator, "categories_"):
        for column, categories in zip(columns, estimator.categories_, strict=False):
            _note(column, categories, facts)
    elif hasattr(estimator, "statistics_"):
        _visit_imputer(estimator, columns, facts)
    elif _is_vectorizer(estimator):
        facts.texts.setdefault(columns[0], "")
    else:
        for inner in _inner(estimator):
            _visit(inner, columns, facts)


def _visit_steps(steps: Iterable[Any], columns: Sequence[int], facts: _Facts) -> None:
    for step in steps:
        _visit(step, columns, facts)
        if step not in ("passthrough", None) and not hasattr(step, "statistics_"):
            return  # from here on the columns are others


def _visit_imputer(imputer: Any, columns: Sequence[int], facts: _Facts) -> None:
    for column, statistic in zip(columns, imputer.statistics_, strict=False):
        if isinstance(statistic, str):
            facts.texts[column] = imputer.missing_values
        else:
            facts.numbers.add(column)


def _note(column: int, categories: Array, facts: _Facts) -> None:
    if not any(isinstance(value, str) for value in categories.tolist()):
        facts.numbers.add(column)
        return
    strange = [value for value in categories.tolist() if not isinstance(value, str)]
    if strange:
        facts.texts[column] = strange[0]
    else:
        facts.texts.setdefault(column, "")


def _inner(estimator: Any) -> list[Any]:
    """Estimators that see the same columns as the one they are in."""
    found = [getattr(estimator, name, None) for name in ("best_estimator_", "_preprocessor")]
    found += [step for _, step in getattr(estimator, "transformer_list", ())]
    found += [item for item in _listed(getattr(estimator, "estimators_", ())) if _is_whole(item)]
    return [item for item in found if item is not None and not isinstance(item, str)]


def _listed(estimators: Any) -> list[Any]:
    return list(np.ravel(estimators)) if isinstance(estimators, np.ndarray) else list(estimators)


def _is_whole(item: Any) -> bool:
    return hasattr(item, "steps") or hasattr(item, "transformers_")


def _first_step(estimator: Any) -> Any:
    while hasattr(estimator, "steps") or hasattr(estimator, "best_estimator_"):
        inner = getattr(estimator, "best_estimator_", None)
        estimator = estimator.steps[0][1] if inner is None else inner
    return estimator


def _is_vectorizer(estimator: Any) -> bool:
    return hasattr(estimator, "build_analyzer")


def _strings(values: Array, missing: Any) -> Array:
    texts = np.empty(len(values), dtype=object)
    texts[:] = [_string(value) or missing for value in values]
    return texts


def _string(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _texts(values: Array) -> Array:
    texts = np.empty(len(values), dtype=object)
    texts[:] = [value.encode() if isinstance(value, str) else b"" for value in values]
    return texts
