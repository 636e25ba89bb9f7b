"""Gather, run, split; and who is spared when a batch fails."""

from collections.abc import Mapping

import numpy as np
import pytest

from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.errors import BackendError, BackendLost, InvalidRequest, ModelNotReady
from server.execution import Part, Plan, run, run_single
from server.probe import PadPlan
from tests.fakes import FakeBackend, rows


def plan(backend: FakeBackend, pad: PadPlan | None = None) -> Plan:
    return Plan("m", backend, is_batched=True, pad=pad)


def part(*values: float, outputs: tuple[str, ...] = ()) -> Part:
    return Part({"x": rows(*values)}, len(values), outputs)


def test_each_part_gets_its_own_rows() -> None:
    outcome = run(plan(FakeBackend()), [part(1), part(2, 3), part(4)])
    answers = [result["y"][:, 0].tolist() for result in outcome.results if isinstance(result, dict)]
    assert answers == [[2], [4, 6], [8]]


def test_a_single_part_is_run_without_a_copy() -> None:
    backend = FakeBackend()
    single = part(1)
    run(plan(backend), [single])
    assert backend.inputs[0]["x"] is single.inputs["x"]


def fail_on(*poison: float, error: Exception | None = None) -> FakeBackend:
    def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if np.isin(inputs["x"], poison).any():
            raise error or RuntimeError("poisoned")
        return {"y": inputs["x"]}

    return FakeBackend(compute)


def test_only_the_culprit_fails() -> None:
    outcome = run(plan(fail_on(7)), [part(value) for value in range(16)])
    failed = [
        index for index, result in enumerate(outcome.results) if isinstance(result, Exception)
    ]
    assert failed == [7]
    assert isinstance(outcome.results[7], BackendError)


def test_several_culprits_fail_and_the_others_do_not() -> None:
    outcome = run(plan(fail_on(0, 5, 6)), [part(value) for value in range(8)])
    failed = [
        index for index, result in enumerate(outcome.results) if isinstance(result, Exception)
    ]
    assert failed == [0, 5, 6]


def test_bisection_costs_few_extra_runs() -> None:
    backend = fail_on(3)
    run(plan(backend), [part(value) for value in range(16)])
    assert len(backend.batches) == 9, "the whole, then two halves at each of four depths"


@pytest.mark.parametrize("error", [BackendLost("its process ended"), ModelNotReady("in 4 s")])
def test_a_batch_that_cost_its_process_is_not_tried_in_parts(error: Exception) -> None:
    backend = fail_on(3, error=error)
    outcome = run(plan(backend), [part(value) for value in range(4)])
    assert backend.batches == [4]
    assert {(type(result), str(result)) for result in outcome.results} == {
        (type(error), str(error))
    }
    assert len(set(map(id, outcome.results))) == 4, "an exception is raised once only"


def test_a_failure_the_client_may_know_keeps_its_words() -> None:
    error = InvalidRequest("input 'x': not UTF-8")
    outcome = run(plan(fail_on(1, error=error)), [part(1)])
    assert outcome.results == [error]


def test_other_failures_tell_the_client_nothing_of_the_inside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcome = run(plan(fail_on(1)), [part(1)])
    assert str(outcome.results[0]) == "model 'm' failed on this request"
    assert "poisoned" in caplog.text


@pytest.mark.parametrize("known", [True, False])
def test_a_single_request_fails_with_what_the_framework_said_as_its_cause(known: bool) -> None:
    framework = RuntimeError("poisoned")
    error = BackendError("onnxruntime: poisoned") if known else framework
    if known:
        error.__cause__ = framework
    with pytest.raises(BackendError) as failed:
        run_single(plan(fail_on(1, error=error)), {"x": rows(1)}, 1, ())
    assert failed.value.__cause__ is framework, "not the failure itself: that would never be freed"


def test_a_model_that_loses_rows_is_found_out() -> None:
    backend = FakeBackend(lambda inputs: {"y": inputs["x"][:1]})
    outcome = run(plan(backend), [part(1), part(2)])
    assert [isinstance(result, dict) for result in outcome.results] == [True, True]
    outcome = run(plan(backend), [part(1, 2)])
    assert "expected 2 rows" in str(outcome.results[0])


def two_outputs() -> FakeBackend:
    spec = row_signature_of("x", "y", "z")
    return FakeBackend(lambda inputs: {"y": inputs["x"], "z": -inputs["x"]}, spec)


def row_signature_of(name: str, *outputs: str) -> Signature:
    specs = [TensorSpec(each, "FP32", ("n", 2)) for each in (name, *outputs)]
    return Signature((specs[0],), tuple(specs[1:]))


def test_parts_get_the_outputs_they_asked_for() -> None:
    outcome = run(plan(two_outputs()), [part(1, outputs=("z",)), part(2)])
    names = [list(result) for result in outcome.results if isinstance(result, dict)]
    assert names == [["z"], ["y", "z"]]


def test_padding_is_put_on_and_taken_off() -> None:
    signature = Signature(
        (TensorSpec("ids", "INT64", ("n", "s")), TensorSpec("mask", "INT64", ("n", "s"))),
        (TensorSpec("y", "INT64", ("n", "s")),),
    )
    backend = FakeBackend(lambda inputs: {"y": inputs["ids"] * inputs["mask"]}, signature)
    pad = PadPlan((("ids", 1), ("mask", 1)), (("y", 1),), "mask")
    parts = [sequence(1, 2, 3), sequence(4)]
    outcome = run(plan(backend, pad), parts)
    assert backend.inputs[0]["ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert backend.inputs[0]["mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    answers = [result["y"].tolist() for result in outcome.results if isinstance(result, dict)]
    assert answers == [[[1, 2, 3]], [[4]]]
    assert outcome.padding_ratio == pytest.approx(4 / 12)


def sequence(*ids: int) -> Part:
    array = np.array([ids], np.int64)
    return Part({"ids": array, "mask": np.ones_like(array)}, 1, ())
