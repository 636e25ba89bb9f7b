"""Runs one batch on a backend: gather inputs, run, split outputs. Called on an instance's thread.

A batch that fails is cut in two and run again, halves of halves down to single requests, so that
only the request at fault fails: n requests with one culprit cost about 2 log2(n) extra runs. One
that cost the model its process fails as a whole.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from protos.tensors import Array
from server.backends.base import Backend
from server.errors import BackendError, BackendLost, ModelNotReady, ServeError
from server.probe import PadPlan

logger = logging.getLogger(__name__)

Outputs = dict[str, Array]


@dataclass(slots=True)
class Part:
    """What one entry brings to a batch."""

    inputs: Mapping[str, Array]
    rows: int
    output_names: tuple[str, ...]  # empty: all


@dataclass(slots=True)
class Outcome:
    """What became of a batch: per part its outputs or its failure, in order."""

    results: list[Outputs | ServeError]
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0
    padding_ratio: float = 0.0


@dataclass(slots=True)
class Plan:
    """How the batches of one version are run."""

    model: str
    backend: Backend
    is_batched: bool  # dimension 0 of every tensor is the batch
    pad: PadPlan | None
    all_outputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.all_outputs = tuple(spec.name for spec in self.backend.signature.outputs)


def run(plan: Plan, parts: Sequence[Part]) -> Outcome:
    """Runs the parts as one batch; of most failed batches every part gets another chance.

    Never raises an `Exception`: failures are in the outcome.
    """
    try:
        return _run_together(plan, parts)
    except (BackendLost, ModelNotReady) as error:
        failure = _failure(plan.model, error)
        return Outcome([type(failure)(str(failure)) for _ in parts])
    except Exception as error:
        if len(parts) == 1:
            return Outcome([_bare(_failure(plan.model, error))])
        logger.debug("model '%s': batch of %d failed, bisecting", plan.model, len(parts))
    middle = len(parts) // 2
    return _joined(run(plan, parts[:middle]), run(plan, parts[middle:]))


def run_single(plan: Plan, inputs: Mapping[str, Array], rows: int, names: Sequence[str]) -> Outputs:
    """Runs one request as its own batch: the shortest way there is, for very small models.

    Raises:
        ServeError: it failed.
    """
    names = names or plan.all_outputs
    try:
        outputs = dict(zip(names, plan.backend.run(inputs, names), strict=True))
        if plan.is_batched:
            _check_rows(plan, outputs, rows)
    except Exception as error:
        failure = _failure(plan.model, error)
        if failure is error:
            raise  # as its own cause it would be a cycle that keeps the request in memory
        raise failure from error
    return outputs


def _joined(first: Outcome, second: Outcome) -> Outcome:
    return Outcome(
        first.results + second.results,
        first.input_s + second.input_s,
        first.infer_s + second.infer_s,
        first.output_s + second.output_s,
        max(first.padding_ratio, second.padding_ratio),
    )


def _failure(model: str, error: Exception) -> ServeError:
    if isinstance(error, ServeError):
        if error.__cause__ is not None:
            logger.warning("model '%s' failed on a request: %s", model, error.__cause__)
        return error
    logger.error("model '%s' failed on a request", model, exc_info=error)
    return BackendError(f"model '{model}' failed on this request")


def _bare(failure: ServeError) -> ServeError:
    """Without the frames it came through: they hold the batch, and the batch will hold it.

    Such a cycle keeps the tensors of the batch until Python's collector comes by.
    """
    failure.__cause__ = failure.__context__ = None
    return failure.with_traceback(None)


def _run_together(plan: Plan, parts: Sequence[Part]) -> Outcome:
    started = time.monotonic()
    padding = 0.0
    if len(parts) == 1:
        inputs = parts[0].inputs
    elif plan.pad is None:
        inputs = {name: np.concatenate([p.inputs[name] for p in parts]) for name in parts[0].inputs}
    else:
        inputs, padding = _padded(plan.pad, parts)
    names = _wanted(plan, parts)
    gathered = time.monotonic()
    arrays = plan.backend.run(inputs, names)
    ran = time.monotonic()
    results = _split(plan, parts, dict(zip(names, arrays, strict=True)))
    return Outcome(results, gathered - started, ran - gathered, time.monotonic() - ran, padding)


def _wanted(plan: Plan, parts: Sequence[Part]) -> Sequence[str]:
    """The outputs to compute: those of the parts if they agree, else all."""
    first = parts[0].output_names
    if first and all(part.output_names == first for part in parts):
        return first
    return plan.all_outputs


def _padded(pad: PadPlan, parts: Sequence[Part]) -> tuple[Outputs, float]:
    """The inputs stacked, every padded axis brought to the longest; and the share of padding."""
    padded_axes: dict[str, list[int]] = {}
    for name, axis in pad.inputs:
        padded_axes.setdefault(name, []).append(axis)
    rows = sum(part.rows for part in parts)
    stacked: Outputs = {}
    real = total = 0
    for name, first in parts[0].inputs.items():
        axes = padded_axes.get(name)
        arrays = [part.inputs[name] for part in parts]
        if axes is None:
            stacked[name] = np.concatenate(arrays)
            continue
        shape = [rows, *first.shape[1:]]
        for axis in axes:
            shape[axis] = max(array.shape[axis] for array in arrays)
        blank = np.zeros(shape, first.dtype)
        if first.dtype == object:
            blank.fill(b"")  # what is no number is an empty text
        stacked[name] = _stack_into(blank, arrays)
        real += sum(array.size for array in arrays)
        total += stacked[name].size
    return stacked, 1.0 - real / total if total else 0.0


def _stack_into(target: Array, arrays: Sequence[Array]) -> Array:
    row = 0
    for array in arrays:
        rows = len(array)
        target[(slice(row, row + rows), *(slice(size) for size in array.shape[1:]))] = array
        row += rows
    return target


def _check_rows(plan: Plan, outputs: Outputs, rows: int) -> None:
    """Raises BackendError where the rows of an output are not the rows of the batch."""
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            raise BackendError(
                f"model '{plan.model}': output '{name}' has shape {list(array.shape)},"
                f" expected {rows} rows"
            )


def _split(plan: Plan, parts: Sequence[Part], outputs: Outputs) -> list[Outputs | ServeError]:
    """Each part's rows of each of its outputs, as views."""
    if plan.is_batched:
        _check_rows(plan, outputs, sum(part.rows for part in parts))
    results: list[Outputs | ServeError] = []
    row = 0
    for part in parts:
        end = row + part.rows
        own = (name for name in part.output_names) if part.output_names else iter(outputs)
        if len(parts) == 1:
            results.append({name: outputs[name] for name in own})
        else:
            results.append({name: outputs[name][row:end] for name in own})
        row = end
    if plan.pad is not None and len(parts) > 1:
        _crop(plan.pad, parts, results)
    return results


def _crop(pad: PadPlan, parts: Sequence[Part], results: Sequence[Outputs | ServeError]) -> None:
    """Takes the padding off the outputs again, in place."""
    name, axis = pad.inputs[0]
    for part, outputs in zip(parts, results, strict=True):
        assert isinstance(outputs, dict)
        length = part.inputs[name].shape[axis]
        for output, output_axis in pad.outputs:
            if output in outputs:
                array = outputs[output]
                outputs[output] = array[(slice(None),) * output_axis + (slice(length),)]
