"""Finds out how an opened model is best run, by running it: the order of the probes.

Example inputs first; then, where the shapes allow batching, whether rows influence each other;
then what batches cost; then warm-up of every batch size that may occur.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from optimizer import example_inputs
from optimizer.example_inputs import Recipe
from optimizer.runner import Run
from protos.signature import Signature
from protos.tensors import Array
from server import batch_probe, latency_curve, pad_probe
from server.backends.base import Backend
from server.backends.by_batch import ByBatchBackend
from server.backends.model_file import ModelFile
from server.backends.reshaped import ReshapedBackend, reshaped
from server.batch_probe import Tolerance
from server.errors import LoadFailed, ServeError
from server.latency_curve import AUTO_LIMIT, Clock
from server.model_config import ModelConfig
from server.probe import CurvePoint, PadPlan, Profile
from server.warm_up_samples import recipe_of, requests_of

Inputs = Mapping[str, Array]
_TRIAL_S, _FEWEST_TRIALS = 0.5, 3


@dataclass(frozen=True, slots=True)
class Probed:
    """A profile, and the inputs it was made with."""

    profile: Profile
    example: Inputs  # one request that the model answers; empty: none was found
    # One per batch size that may occur: to warm up another session.
    batches: tuple[Inputs, ...] = ()
    failure: str = ""  # why the model answered no example; "" when it did


def runner(backend: Backend) -> Run:
    """A backend as the probes call it."""
    names = [spec.name for spec in backend.signature.outputs]
    return lambda inputs: dict(zip(names, backend.run(inputs, names), strict=True))


def _forms(backend: Backend, config: ModelConfig) -> list[Run]:
    """What runs the batches: the backend, or each of the forms that it picks from by batch size.

    Answers of two forms differ by more than rows of one form may.
    """
    inner = backend.inner if isinstance(backend, ReshapedBackend) else backend
    if not isinstance(inner, ByBatchBackend):
        return [runner(backend)]
    return [runner(reshaped(regime.backend, config)) for regime in inner.regimes]


def probe(
    backend: Backend,
    config: ModelConfig,
    file: ModelFile,
    budget_s: float,
    clock: Clock = time.perf_counter,
) -> Probed:
    """Probes, measures for about `budget_s` of `clock`, and warms up.

    Completes the backend's signature where the model does not say an output's rank.

    Raises:
        LoadFailed: a `model_warmup` sample cannot be read, or the model fails on it.
    """
    run, signature = runner(backend), backend.signature
    recipes = (*(recipe_of(s, signature) for s in config.warm_up_samples), *example_inputs.RECIPES)
    rows = 1 if _inputs_have_rows(signature) else None
    recipe, error = example_inputs.find(run, signature, recipes, rows)
    if recipe is None:
        return Probed(_unprobed(config, signature, error), {}, failure=error)
    example = example_inputs.make(signature, recipe, rows)
    backend.signature = signature = _with_seen_ranks(signature, run(example))
    tolerance = _tolerance(backend, file)
    forms = _forms(backend, config)
    return _Probe(run, forms, signature, config, recipe, tolerance, budget_s, clock).probe(example)


def warm_up(backend: Backend, probed: Probed) -> None:
    """Runs every batch size that may occur once."""
    run = runner(backend)
    for inputs in probed.batches:
        run(inputs)


def answers_within(backend: Backend, example: Inputs, limit_s: float) -> bool:
    """Whether one request ever takes at most `limit_s`; tried for half a second.

    One quick run is proof; slow ones may have been disturbed by what else loads or serves.
    """
    run = runner(backend)
    ends = time.perf_counter() + _TRIAL_S
    for attempt in count():
        started = time.perf_counter()
        run(example)
        now = time.perf_counter()
        if now - started <= limit_s:
            return True
        if now > ends and attempt >= _FEWEST_TRIALS:
            return False
    raise AssertionError("count() ended")


@dataclass(frozen=True, slots=True)
class _Probe:
    """The probes of one model for which an example was found."""

    _run: Run
    _forms: Sequence[Run]
    _signature: Signature
    _config: ModelConfig
    _recipe: Recipe
    _tolerance: Tolerance
    _budget_s: float
    _clock: Clock

    def probe(self, example: Inputs) -> Probed:
        reason = _disabled_reason(self._config) or batch_probe.shape_reason(self._signature)
        if reason:
            return self._one_by_one(example, reason, None)
        reason = self._difference(example) or self._mixing_reason(*batch_probe.SIZES)
        if reason:
            return self._one_by_one(example, reason, self._request_rows())
        return self._batched(example)

    def _batched(self, example: Inputs) -> Probed:
        started = time.monotonic()
        limit = self._config.batching.max_batch or self._config.max_batch_size or AUTO_LIMIT
        curve = latency_curve.measure(self._run, self._make, limit, self._budget_s, self._clock)
        max_batch, why = _max_batch(self._config, curve, limit)
        if self._tolerance is batch_probe.DYNAMIC_QUANTIZATION:
            why += "; answers vary slightly with their batch, whose rows share a quantization scale"
        if max_batch > max(batch_probe.SIZES):
            reason = self._mixing_reason(max_batch)
            if reason:
                return self._one_by_one(example, reason, self._request_rows())
        sizes = latency_curve.sizes(max_batch)
        batches = tuple(self._make(rows) for rows in sizes)
        self._warm_up([b for b, rows in zip(batches, sizes, strict=True) if rows > curve[-1].batch])
        warm_up_s = time.monotonic() - started
        pad, pad_reason = self._pad()
        profile = Profile(True, "", max_batch, why, None, pad, pad_reason, curve, warm_up_s)
        return Probed(profile, example, batches)

    def _one_by_one(self, example: Inputs, reason: str, request_rows: int | None) -> Probed:
        started = time.monotonic()
        curve = latency_curve.measure(self._run, lambda _: example, 1, self._budget_s, self._clock)
        self._warm_up([])
        warm_up_s = time.monotonic() - started
        profile = Profile(False, reason, request_rows=request_rows, curve=curve)
        pad_reason = reason if self._config.batching.pad != "none" else ""
        profile = replace(profile, pad_reason=pad_reason, warm_up_s=warm_up_s)
        return Probed(profile, example, (example,))

    def _difference(self, example: Inputs) -> str:
        is_repeatable = batch_probe.is_repeatable(self._run, example)
        return "" if is_repeatable else "two runs of the same input give different answers"

    def _mixing_reason(self, *sizes: int) -> str:
        for run in self._forms:
            for rows in sizes:
                reason = batch_probe.mixing_reason(run, self._make, rows, self._tolerance)
                if reason:
                    return reason
        return ""

    def _request_rows(self) -> int | None:
        """The declared limit of one request's rows, where every output has a row per row."""
        try:
            outputs = self._run(self._make(2))
        except ServeError:
            return None
        follow = all(array.ndim and len(array) == 2 for array in outputs.values())
        return self._config.max_batch_size or None if follow else None

    def _pad(self) -> tuple[PadPlan | None, str]:
        batching = self._config.batching
        if batching.pad == "none":
            return None, ""
        return pad_probe.pad_plan(
            self._run, self._signature, self._recipe, batching.pad_mask, self._tolerance
        )

    def _make(self, rows: int, seed: int = 0) -> Inputs:
        return example_inputs.make(self._signature, self._recipe, rows, seed)

    def _warm_up(self, batches: list[Inputs]) -> None:
        if not self._config.execution.warm_up:
            return
        for inputs in batches:
            self._run(inputs)
        for sample in self._config.warm_up_samples:
            for inputs in requests_of(sample):
                try:
                    self._run(inputs)
                except ServeError as error:
                    raise LoadFailed(f"model_warmup '{sample.name}' fails: {error}") from error


def _unprobed(config: ModelConfig, signature: Signature, error: str) -> Profile:
    """The profile of a model that answered none of our guesses."""
    reason = (
        _disabled_reason(config)
        or batch_probe.shape_reason(signature)
        or "no example input was found that the model answers, so batching could not be tried"
        f" (first failure: {error}); a model_warmup sample in config.pbtxt is tried first"
    )
    return Profile(False, reason, pad_reason=reason if config.batching.pad != "none" else "")


def _disabled_reason(config: ModelConfig) -> str:
    if config.batching.enabled is not False:
        return ""
    if config.max_batch_size == 0:
        return f"{config.origin}: max_batch_size is 0"
    return "switched off by [batching] enabled"


def _max_batch(config: ModelConfig, curve: tuple[CurvePoint, ...], limit: int) -> tuple[int, str]:
    if config.batching.max_batch is not None:
        return limit, "set by the configuration"
    return latency_curve.choose(curve, limit)


def _tolerance(backend: Backend, file: ModelFile) -> Tolerance:
    if file.is_dynamically_quantized:
        return batch_probe.DYNAMIC_QUANTIZATION
    if file.is_low_precision:
        return batch_probe.LOW_PRECISION
    return batch_probe.CPU if backend.devices == ("cpu",) else batch_probe.ACCELERATOR


def _inputs_have_rows(signature: Signature) -> bool:
    required = [spec for spec in signature.inputs if not spec.optional]
    return bool(required) and all(s.shape and isinstance(s.shape[0], str) for s in required)


def _with_seen_ranks(signature: Signature, outputs: Inputs) -> Signature:
    """Gives outputs of unknown rank, which look like scalars, the rank that was seen."""
    return Signature(
        signature.inputs,
        tuple(
            replace(spec, shape=tuple(f"{spec.name}[{axis}]" for axis in range(seen.ndim)))
            if not spec.shape and (seen := outputs[spec.name]).ndim
            else spec
            for spec in signature.outputs
        ),
    )
