"""The batcher with real threads and a backend that waits when told to."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.batch_policy import BatchSettings, QueuePolicy, TimeoutAction
from server.batcher import Batcher
from server.errors import (
    BackendError,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotReady,
    QueueFull,
    WrongState,
)
from server.execution import Plan
from server.instance_pool import InstancePool
from server.probe import CurvePoint, PadPlan, Profile
from server.request import InferRequest, ReleaseReason, Timing
from server.slots import ComputeSlots
from server.statistics import VersionStatistics
from tests.fakes import FakeBackend, double, row_signature, rows

BATCHED = Profile(batchable=True, max_batch=8, curve=(CurvePoint(1, 0.010, 0.010),))
UNBATCHED = Profile(batchable=False, reason="rows influence each other")


@dataclass
class Bench:
    """A batcher and everything around it."""

    batcher: Batcher
    backend: FakeBackend
    statistics: VersionStatistics
    broken: list[str]
    wide: FakeBackend | None

    async def running(self, backend: FakeBackend | None = None) -> None:
        """Waits until a run has begun."""
        await asyncio.to_thread((backend or self.backend).entered.acquire)

    def submit(self, *values: float, **fields: Any) -> "asyncio.Task[tuple[list[float], Timing]]":
        request = InferRequest("m", {"x": rows(*values)}, **fields)
        return asyncio.ensure_future(self._values(request))

    async def _values(self, request: InferRequest) -> tuple[list[float], Timing]:
        outputs, timing = await self.batcher.submit(request)
        return outputs["y"][:, 0].tolist(), timing


@asynccontextmanager
async def bench(
    backend: FakeBackend | None = None,
    profile: Profile = BATCHED,
    *,
    instances: int = 1,
    threads: int = 2,
    wide: FakeBackend | None = None,
    slots: ComputeSlots | None = None,
    **settings: Any,
) -> AsyncIterator[Bench]:
    backend = backend or FakeBackend()
    values = {"max_batch": profile.max_batch, **settings}
    statistics, broken = VersionStatistics(), []  # type: tuple[VersionStatistics, list[str]]

    def plan(of: FakeBackend) -> Plan:
        return Plan("m", of, profile.batchable, profile.pad)

    slots = slots or ComputeSlots(threads)
    pool = InstancePool("m", plan(backend), plan(wide) if wide else None, instances, slots)
    batcher = Batcher(
        "m",
        backend.signature,
        profile,
        settings=BatchSettings(**values),
        pool=pool,
        statistics=statistics,
        on_health=broken.append,
    )
    try:
        yield Bench(batcher, backend, statistics, broken, wide)
    finally:
        backend.gate.set()
        batcher.close()


def raising(
    error: Exception | type[BaseException],
) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
        raise error

    return compute


async def turns_of_the_loop(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_request_is_answered() -> None:
    async with bench() as b:
        values, timing = await b.submit(1, 2)
        assert values == [2, 4]
        assert timing.release_reason is ReleaseReason.IDLE_INSTANCE
        assert (timing.batch_rows, timing.batch_requests) == (2, 1)


async def test_requests_that_come_together_share_a_batch() -> None:
    async with bench() as b:
        answers = await asyncio.gather(*(b.submit(value) for value in range(5)))
        assert [values for values, _ in answers] == [[0], [2], [4], [6], [8]]
        assert b.backend.batches == [5]
        assert [timing.batch_position for _, timing in answers] == [0, 1, 2, 3, 4]


async def test_requests_gather_while_the_instance_is_busy() -> None:
    async with bench() as b:
        b.backend.gate.clear()
        first = b.submit(0)
        await b.running()
        others = [b.submit(value) for value in range(1, 12)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert b.statistics.queue_depth == 11
        b.backend.gate.set()
        await asyncio.gather(first, *others)
        assert b.backend.batches == [1, 8, 3]
        assert b.statistics.releases[ReleaseReason.FULL] == 1


async def test_two_instances_run_side_by_side() -> None:
    async with bench(instances=2) as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        second = b.submit(2)
        await b.running()
        b.backend.gate.set()
        await asyncio.gather(first, second)
        assert b.backend.batches == [1, 1]


async def test_compute_slots_bound_what_runs_at_once() -> None:
    async with bench(instances=2, threads=1) as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        others = [b.submit(2), b.submit(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert b.backend.batches == [1]
        b.backend.gate.set()
        await asyncio.gather(first, *others)
        assert b.backend.batches == [1, 2]


async def test_a_model_whose_queue_never_empties_does_not_starve_another() -> None:
    slots = ComputeSlots(1)
    async with bench(slots=slots, instances=2, max_batch=1) as busy, bench(slots=slots) as b:
        busy.backend.gate.clear()
        many = [busy.submit(value) for value in range(20)]
        await busy.running()
        asked = b.submit(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        busy.backend.gate.set()
        await asked
        assert len(busy.backend.batches) < 5
        await asyncio.gather(*many)


async def test_a_caller_that_leaves_frees_the_slots_it_waited_for() -> None:
    slots = ComputeSlots(2)
    async with (
        bench(slots=slots) as long,
        bench(FakeBackend(threads=2), slots=slots) as hungry,
        bench(slots=slots) as b,
    ):
        long.backend.gate.clear()
        runs = long.submit(1)
        await long.running()
        leaving = hungry.submit(2)
        await turns_of_the_loop(2)
        asked = b.submit(3)
        await turns_of_the_loop(2)
        leaving.cancel()
        assert (await asyncio.wait_for(asked, 5))[0] == [6]
        long.backend.gate.set()
        await runs


async def test_a_failure_to_start_another_model_leaves_no_batch_unanswered() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    slots, problems = ComputeSlots(1), []  # type: tuple[ComputeSlots, list[str]]
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: problems.append(type(context["exception"]).__name__)
    )
    async with bench(slots=slots) as b:
        b.backend.gate.clear()
        runs = b.submit(1)
        await b.running()
        assert slots.take(1, 1.0, fail) is None
        b.backend.gate.set()
        assert (await asyncio.wait_for(runs, 5))[0] == [2]
        assert (await asyncio.wait_for(b.submit(2), 5))[0] == [4]
    assert problems == ["ZeroDivisionError"], "it is told"


async def test_the_window_holds_an_idle_instance() -> None:
    async with bench(window_s=0.02) as b:
        first = b.submit(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second = b.submit(2)
        (_, timing), _ = await asyncio.gather(first, second)
        assert b.backend.batches == [2]
        assert timing.release_reason is ReleaseReason.WINDOW
        assert timing.queue_s >= 0.019


async def test_a_full_batch_does_not_wait_for_the_window() -> None:
    async with bench(window_s=3600.0) as b:
        await asyncio.gather(*(b.submit(value) for value in range(8)))
        assert b.backend.batches == [8]
        assert b.statistics.releases == {ReleaseReason.FULL: 1}


async def test_deadline_pressure_ends_the_window() -> None:
    async with bench(window_s=3600.0) as b:
        _, timing = await b.submit(1, deadline=time.monotonic() + 0.05)
        assert timing.release_reason is ReleaseReason.DEADLINE


async def test_a_large_request_is_split_and_put_together_again() -> None:
    async with bench(instances=2) as b:
        values, timing = await b.submit(*range(20))
        assert values == [2.0 * value for value in range(20)]
        assert sorted(b.backend.batches) == [4, 8, 8]
        assert timing.compute_infer_s > 0


async def test_a_large_request_does_not_queue_while_its_own_slices_run() -> None:
    async with bench() as b:
        b.backend.gate.clear()
        asked = b.submit(*range(20))
        started = time.monotonic()
        await b.running()
        await asyncio.sleep(0.02)
        b.backend.gate.set()
        _, timing = await asked
        assert timing.compute_infer_s >= 0.02
        assert timing.queue_s + timing.compute_s <= time.monotonic() - started


async def test_a_large_request_fails_as_a_whole() -> None:
    def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if 9 in inputs["x"]:
            raise RuntimeError("poisoned")
        return {"y": inputs["x"]}

    async with bench(FakeBackend(compute)) as b:
        with pytest.raises(BackendError):
            await b.submit(*range(64))
        assert b.statistics.queue_depth == 0
        assert len(b.backend.batches) <= 3, "slices that had not begun at the failure are not run"


async def test_slices_that_do_not_fit_together_fail_their_request_and_no_other() -> None:
    def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": np.ones((len(inputs["x"]), int(inputs["x"].max())), np.float32)}

    async with bench(FakeBackend(compute)) as b:
        large, mate = b.submit(*[1] * 8, *[3] * 4), b.submit(*[3] * 4)
        assert (await asyncio.wait_for(mate, 10))[0] == [1] * 4
        with pytest.raises(BackendError, match=r"'y': .* \[1\] and \[3\]"):
            await asyncio.wait_for(large, 10)
        assert b.backend.batches == [8, 8]


async def test_shapes_that_differ_do_not_share_a_batch() -> None:
    async with bench(FakeBackend(signature=row_signature("s"))) as b:
        wide = InferRequest("m", {"x": np.ones((1, 3), np.float32)})
        (values, _), (outputs, _) = await asyncio.gather(b.submit(1), b.batcher.submit(wide))
        assert values == [2]
        assert outputs["y"].shape == (1, 3)
        assert b.backend.batches == [1, 1]


async def test_a_model_that_does_not_batch_runs_one_by_one() -> None:
    async with bench(profile=UNBATCHED) as b:
        answers = await asyncio.gather(*(b.submit(1, 2, 3) for _ in range(3)))
        assert b.backend.batches == [3, 3, 3]
        assert answers[0][1].release_reason is ReleaseReason.UNBATCHED
        assert b.statistics.inference_count == 3


async def test_a_full_queue_is_refused_with_the_predicted_wait() -> None:
    async with bench(queue=QueuePolicy(queue_limit=2)) as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        waiting = [b.submit(2), b.submit(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="Exceeds maximum queue size") as refused:
            await b.submit(4)
        assert refused.value.predicted_wait_s > 0
        assert b.statistics.dropped["queue_full"] == 1
        b.backend.gate.set()
        await asyncio.gather(first, *waiting)


async def test_the_predicted_wait_counts_requests_where_they_run_one_by_one() -> None:
    curve = (CurvePoint(1, 0.010, 0.010),)
    profile = Profile(batchable=False, reason="no", request_rows=8, curve=curve)
    async with bench(profile=profile) as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        waiting = [b.submit(1, 2, 3), b.submit(1, 2, 3)]
        await turns_of_the_loop(1)
        assert b.batcher.predicted_wait_s() == pytest.approx(2.5 * 0.010)
        b.backend.gate.set()
        await asyncio.gather(first, *waiting)


async def test_a_passed_deadline_is_refused_at_once() -> None:
    async with bench() as b:
        with pytest.raises(DeadlineExceeded):
            await b.submit(1, deadline=time.monotonic() - 1)
        assert b.backend.batches == []


async def test_a_deadline_that_passes_in_the_queue_drops_the_request_before_it_runs() -> None:
    async with bench() as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        late, patient = b.submit(2, deadline=time.monotonic() + 0.001), b.submit(3)
        await asyncio.sleep(0.002)
        b.backend.gate.set()
        with pytest.raises(DeadlineExceeded):
            await late
        await asyncio.gather(first, patient)
        assert b.backend.batches == [1, 1]
        assert b.statistics.dropped["deadline"] == 1


async def test_a_cancelled_caller_does_not_hurt_its_batch() -> None:
    async with bench() as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        leaving, staying = b.submit(2), b.submit(3)
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        assert b.statistics.queue_depth == 1
        b.backend.gate.set()
        assert (await staying)[0] == [6]
        await first
        assert b.backend.batches == [1, 1]
        assert b.statistics.dropped["cancelled"] == 1


async def test_a_caller_that_leaves_while_its_batch_runs_does_not_hurt_it() -> None:
    async with bench() as b:
        b.backend.gate.clear()
        leaving, staying = b.submit(1), b.submit(2)
        await b.running()
        leaving.cancel()
        await asyncio.sleep(0)
        b.backend.gate.set()
        assert (await staying)[0] == [4]


async def test_a_queue_timeout_refuses_what_waited_too_long() -> None:
    async with bench(queue=QueuePolicy(timeout_s=0.005)) as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        with pytest.raises(DeadlineExceeded, match="Request timeout expired"):
            await b.submit(2)
        b.backend.gate.set()
        await first
        assert b.statistics.dropped["queue_timeout"] == 1


async def test_who_is_dropped_at_the_queue_timeout_is_not_counted_as_waiting() -> None:
    async with bench(queue=QueuePolicy(timeout_s=0.001)) as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        with pytest.raises(DeadlineExceeded):
            await b.submit(2)
        assert b.statistics.queue_depth == 0
        b.backend.gate.set()
        await first


async def test_delayed_requests_still_count_against_the_queue_limit() -> None:
    policy = QueuePolicy(queue_limit=2, timeout_s=0.001, timeout_action=TimeoutAction.DELAY)
    async with bench(queue=policy) as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        delayed = [b.submit(2), b.submit(3)]
        await asyncio.sleep(0.005)
        with pytest.raises(QueueFull):
            await asyncio.wait_for(b.submit(4), 5)
        b.backend.gate.set()
        await asyncio.gather(first, *delayed)


async def test_only_what_was_answered_is_counted_as_run() -> None:
    def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
        if 13 in inputs["x"]:
            raise RuntimeError("poisoned")
        return {"y": inputs["x"]}

    async with bench(FakeBackend(compute)) as b:
        with pytest.raises(BackendError):
            await b.submit(13)
        assert (b.statistics.execution_count, b.statistics.inference_count) == (0, 0)
        answers = await asyncio.gather(
            b.submit(1, 2), b.submit(13), b.submit(4), return_exceptions=True
        )
        assert isinstance(answers[1], BackendError)
        assert (b.statistics.execution_count, b.statistics.inference_count) == (1, 3)
        assert b.statistics.batched_requests == 2


async def test_failures_do_not_make_a_long_run_look_short() -> None:
    async with bench(FakeBackend(raising(RuntimeError("poisoned"))), max_batch=1) as b:
        waiting = [b.submit(1) for _ in range(10)]
        before = await predicted_wait_of_full_queue(b)
        await asyncio.gather(*waiting, return_exceptions=True)
        waiting = [b.submit(1) for _ in range(10)]
        assert await predicted_wait_of_full_queue(b) == pytest.approx(before)
        await asyncio.gather(*waiting, return_exceptions=True)


async def predicted_wait_of_full_queue(b: Bench) -> float:
    """What a request is told that comes while all before it wait."""
    await asyncio.sleep(0)
    return b.batcher.predicted_wait_s()


async def test_a_request_may_ask_for_a_shorter_queue_timeout() -> None:
    async with bench(queue=QueuePolicy(timeout_s=3600.0)) as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        with pytest.raises(DeadlineExceeded):
            await b.submit(2, queue_timeout_s=0.001)
        b.backend.gate.set()
        await first


async def test_delay_serves_a_timed_out_request_after_the_others() -> None:
    policy = QueuePolicy(timeout_s=0.001, timeout_action=TimeoutAction.DELAY)
    async with bench(queue=policy, max_batch=1) as b:
        b.backend.gate.clear()
        first = b.submit(1)
        await b.running()
        delayed = b.submit(2)
        await asyncio.sleep(0.005)
        fresh = b.submit(3, queue_timeout_s=None)
        await asyncio.sleep(0)
        b.backend.gate.set()
        await asyncio.gather(first, delayed, fresh)
        assert [int(batch["x"][0, 0]) for batch in b.backend.inputs] == [1, 3, 2]


async def test_priorities_overtake() -> None:
    async with bench(priority_levels=3, default_priority=2, max_batch=1) as b:
        b.backend.gate.clear()
        tasks = [b.submit(1)]
        await b.running()
        tasks += [b.submit(2, priority=3), b.submit(3), b.submit(4, priority=1)]
        await asyncio.sleep(0)
        b.backend.gate.set()
        await asyncio.gather(*tasks)
        assert [int(batch["x"][0, 0]) for batch in b.backend.inputs] == [1, 4, 3, 2]


async def test_an_unknown_priority_is_refused() -> None:
    async with bench(priority_levels=2) as b:
        with pytest.raises(InvalidRequest, match=r"priority 3 .* expected 1 \(highest\) to 2"):
            await b.submit(1, priority=3)


async def test_order_is_kept_where_asked() -> None:
    async with bench(instances=2, preserve_ordering=True, max_batch=1) as b:
        finished: list[int] = []

        async def numbered(number: int) -> None:
            await b.submit(number)
            finished.append(number)

        await asyncio.gather(*(numbered(number) for number in range(20)))
        assert finished == list(range(20))


async def test_a_caller_that_leaves_lets_nobody_overtake() -> None:
    async with bench(instances=2, preserve_ordering=True, max_batch=1) as b:
        b.backend.gate.clear()
        first, leaving = b.submit(1), b.submit(2)
        await b.running()
        await b.running()
        last = b.submit(3)
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait_for(asyncio.wait([leaving]), 5)
        assert b.statistics.queue_depth == 1, "the last waits, the one that left ran"
        b.backend.gate.set()
        order: list[str] = []
        first.add_done_callback(lambda _: order.append("first"))
        last.add_done_callback(lambda _: order.append("last"))
        await asyncio.gather(first, last)
        assert order == ["first", "last"]


async def test_a_caller_that_leaves_while_it_waits_for_its_turn_lets_nobody_overtake() -> None:
    gates = {value: threading.Event() for value in (1.0, 2.0, 3.0)}
    backend = FakeBackend()

    def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
        backend.entered.release()
        assert gates[float(inputs["x"][0, 0])].wait(30)
        return {"y": inputs["x"]}

    backend._compute = compute
    async with bench(backend, instances=3, threads=3, preserve_ordering=True, max_batch=1) as b:
        tasks = [b.submit(value) for value in gates]
        for _ in range(6):  # noted on entry and by `compute`
            await b.running()
        for value in (2.0, 3.0):
            gates[value].set()
        while b.statistics.execution_count < 2:  # noqa: ASYNC110 - nobody is told of it
            await asyncio.sleep(0)
        await turns_of_the_loop(5)
        tasks[1].cancel()
        await turns_of_the_loop(5)
        assert tasks[1].cancelled()
        assert not tasks[2].done(), "the first has not been answered"
        gates[1.0].set()
        assert (await tasks[2])[0] == [3]
        assert tasks[0].done()


async def test_settings_are_in_force_with_the_next_batch() -> None:
    async with bench(window_s=3600.0) as b:
        waiting = b.submit(1)
        await asyncio.sleep(0)
        b.batcher.apply(BatchSettings(max_batch=2))
        await waiting
        await asyncio.gather(*(b.submit(value) for value in range(4)))
        assert b.backend.batches == [1, 2, 2]


async def test_a_model_that_must_not_batch_cannot_be_made_to() -> None:
    async with bench(profile=UNBATCHED) as b:
        with pytest.raises(WrongState, match="rows influence each other"):
            b.batcher.apply(BatchSettings(max_batch=4))


async def test_nan_is_the_clients_business() -> None:
    async with bench() as b:
        answers = await asyncio.gather(b.submit(float("nan")), b.submit(1))
        assert np.isnan(answers[0][0][0])
        assert answers[1][0] == [2]


async def test_an_instance_that_breaks_fails_its_batch_and_is_replaced() -> None:
    backend = FakeBackend(raising(SystemExit))
    async with bench(backend) as b:
        with pytest.raises(BackendError, match="broke"):
            await b.submit(1)
        assert b.broken and "SystemExit" in b.broken[0]
        backend._compute = lambda inputs: {"y": inputs["x"]}
        assert (await b.submit(5))[0] == [5]
        assert b.broken[1:] == [""], "healthy again"


async def test_an_instance_that_hangs_is_replaced() -> None:
    async with bench() as b:
        b.backend.gate.clear()
        stuck = b.submit(1)
        await b.running()
        b.batcher.check(time.monotonic() + 10, hang_timeout_s=5)
        with pytest.raises(BackendError, match="did not return within 5 s"):
            await stuck
        assert len(b.broken) == 1
        next_one = b.submit(2)
        await b.running()
        b.backend.gate.set()
        assert (await next_one)[0] == [4]


async def test_a_lone_client_gets_the_wide_instance_and_company_ends_that() -> None:
    wide = FakeBackend(threads=2)
    async with bench(wide=wide, instances=2) as b:
        for _ in range(4):
            await b.submit(1)
        assert (len(b.backend.batches), len(wide.batches)) == (2, 2)
        wide.gate.clear()
        alone = b.submit(1)
        for _ in range(3):
            await b.running(wide)
        company = b.submit(2)
        await asyncio.sleep(0)
        wide.gate.set()
        await asyncio.gather(alone, company)
        assert (len(b.backend.batches), len(wide.batches)) == (3, 3)


async def test_rows_that_run_as_they_come_keep_no_lone_client_from_the_wide_instance() -> None:
    wide = FakeBackend(threads=2)
    profile = Profile(batchable=False, reason="rows influence each other", request_rows=8)
    async with bench(profile=profile, wide=wide) as b:
        for _ in range(3):
            await b.submit(1, 2, 3)
        assert (len(b.backend.batches), len(wide.batches)) == (2, 1)


async def test_closing_refuses_what_waits_and_answers_what_runs() -> None:
    async with bench() as b:
        b.backend.gate.clear()
        runs = b.submit(1)
        await b.running()
        waits = b.submit(2)
        await asyncio.sleep(0)
        b.batcher.close()
        with pytest.raises(ModelNotReady):
            await waits
        with pytest.raises(ModelNotReady):
            await b.submit(3)
        b.backend.gate.set()
        assert (await runs)[0] == [2]


async def test_closing_leaves_no_timer_behind() -> None:
    async with bench(window_s=3600.0, queue=QueuePolicy(timeout_s=3600.0)) as b:
        waits = b.submit(1)
        await turns_of_the_loop(2)
        b.batcher.close()
        await asyncio.wait([waits])
        assert isinstance(waits.exception(), ModelNotReady)
        assert b.statistics.queue_depth == 0
        closed = weakref.ref(b.batcher)
    del b, waits
    gc.collect()
    assert closed() is None, "an hour would be long to keep a model's session"


async def test_every_answer_belongs_to_its_request() -> None:
    async with bench(instances=2, max_batch=5) as b:
        generator = np.random.default_rng(1)

        async def client(number: int) -> None:
            for _ in range(20):
                values = generator.integers(0, 1000, generator.integers(1, 12)).tolist()
                try:
                    answer, _ = await asyncio.wait_for(
                        b.submit(*values), 10 if number % 5 else 0.001
                    )
                except TimeoutError:
                    continue
                assert answer == [2.0 * value for value in values]

        await asyncio.gather(*(client(number) for number in range(20)))
        assert b.statistics.queue_depth == 0
        assert not b.batcher.pool.leased


SHORT = Profile(
    batchable=True,
    max_batch=8,
    curve=(CurvePoint(1, 8e-5, 8e-5), CurvePoint(4, 1e-4, 1e-4), CurvePoint(8, 1e-3, 1e-3)),
)


class ThreadNotes(FakeBackend):
    """Notes which thread ran each batch."""

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        self.threads_seen.append(threading.current_thread())
        return super().run(inputs, output_names)

    def __init__(self) -> None:
        super().__init__()
        self.threads_seen: list[threading.Thread] = []


async def test_a_batch_shorter_than_a_thread_switch_runs_on_the_loop() -> None:
    backend = ThreadNotes()
    async with bench(backend, profile=SHORT) as b:
        await asyncio.gather(*(b.submit(value) for value in range(4)))
        await asyncio.gather(*(b.submit(value) for value in range(5)))
        here = threading.current_thread()
        assert [thread is here for thread in backend.threads_seen] == [True, False]


async def test_between_short_batches_the_loop_sees_to_others() -> None:
    profile = Profile(batchable=False, reason="no", curve=(CurvePoint(1, 8e-5, 8e-5),))
    spec = TensorSpec("x", "FP32", (1, 2))
    backend = FakeBackend(signature=Signature((spec,), (replace(spec, name="y"),)))
    async with bench(backend, profile=profile) as b:
        ran: list[int] = []
        waiting = [b.submit(value) for value in range(3)]
        waiting[0].add_done_callback(lambda _: ran.append(len(b.backend.batches)))
        await asyncio.gather(*waiting)
        assert ran[0] < 3


TINY = Profile(
    batchable=True, max_batch=8, curve=(CurvePoint(1, 1e-5, 1e-5), CurvePoint(8, 4e-5, 4e-5))
)


async def test_a_request_that_is_not_worth_queueing_is_answered_without_suspending() -> None:
    backend = ThreadNotes()
    async with bench(backend, profile=TINY) as b:
        request = InferRequest("m", {"x": rows(1, 2)})
        with pytest.raises(StopIteration) as answered:
            b.batcher.submit(request).send(None)
        outputs, timing = answered.value.value
        assert outputs["y"].tolist() == [[2, 2], [4, 4]]
        assert (timing.batch_rows, timing.queue_s) == (2, 0.0)
        assert b.statistics.execution_count == 1
        with pytest.raises(DeadlineExceeded):
            await b.submit(1, deadline=time.monotonic() - 1)
        with pytest.raises(InvalidRequest):
            await b.submit(1, priority=9)


async def test_a_window_makes_even_tiny_requests_queue() -> None:
    async with bench(profile=TINY, window_s=0.001) as b:
        await asyncio.gather(*(b.submit(value) for value in range(4)))
        assert b.backend.batches == [4]


async def test_a_failure_of_an_instant_request_is_its_own() -> None:
    async with bench(FakeBackend(raising(RuntimeError("broken"))), profile=TINY) as b:
        with pytest.raises(BackendError):
            await b.submit(1)


async def test_a_model_whose_runs_differ_in_length_never_runs_on_the_loop() -> None:
    backend = ThreadNotes()
    backend.signature = row_signature("s")
    async with bench(backend, profile=SHORT) as b:
        await b.submit(1)
        assert backend.threads_seen[0] is not threading.current_thread()


PADDED = PadPlan((("x", 1),), (("y", 1),))


@pytest.mark.parametrize("curve", [TINY.curve, SHORT.curve])
@pytest.mark.parametrize(
    ("profile", "spec"),
    [
        pytest.param(
            Profile(batchable=True, max_batch=8, pad=PADDED),
            TensorSpec("x", "FP32", ("n", "s")),
            id="padded rows of any length",
        ),
        pytest.param(
            Profile(batchable=False, reason="rows influence each other"),
            TensorSpec("x", "FP32", ("n", 2)),
            id="any number of rows that are not counted",
        ),
        pytest.param(
            Profile(batchable=True, max_batch=8),
            TensorSpec("x", "BYTES", ("n", 2)),
            id="texts of any length",
        ),
    ],
)
async def test_requests_whose_runs_may_differ_in_length_never_run_on_the_loop(
    profile: Profile, spec: TensorSpec, curve: tuple[CurvePoint, ...]
) -> None:
    backend = ThreadNotes()
    backend.signature = Signature((spec,), (replace(spec, name="y"),))
    async with bench(backend, profile=replace(profile, curve=curve)) as b:
        await b.submit(1)
        assert backend.threads_seen[0] is not threading.current_thread()


async def test_requests_without_rows_run_alone_and_on_the_thread() -> None:
    backend = ThreadNotes()
    backend.devices = ("cuda:0",)
    async with bench(backend, profile=SHORT) as b:
        await asyncio.gather(b.submit(), b.submit())
        assert backend.batches == [0, 0]
        assert threading.current_thread() not in backend.threads_seen


async def test_a_run_on_a_gpu_never_holds_the_loop() -> None:
    for profile in (TINY, SHORT):
        backend = ThreadNotes()
        backend.devices = ("cuda:0",)
        async with bench(backend, profile=profile) as b:
            await b.submit(1)
            assert backend.threads_seen[0] is not threading.current_thread()


async def test_runs_on_a_gpu_need_no_compute_slot() -> None:
    backend = FakeBackend()
    backend.devices = ("cuda:0",)
    backend.gate.clear()
    async with bench(backend, instances=2, threads=1, max_batch=1) as b:
        answers = [b.submit(value) for value in range(2)]
        await b.running()
        await b.running()
        backend.gate.set()
        await asyncio.gather(*answers)


@pytest.mark.parametrize("error", [None, BackendError])
async def test_a_request_that_is_done_is_freed_without_the_collector(
    error: type[BackendError] | None,
) -> None:
    async with bench(FakeBackend(raising(error) if error else double)) as b:
        request, freed = InferRequest("m", {"x": rows(1)}), threading.Event()
        weakref.finalize(request.inputs["x"], freed.set)
        gc.disable()
        try:
            task = asyncio.ensure_future(b.batcher.submit(request))
            await asyncio.wait([task])
            assert (task.exception() is None) is (error is None)
            del request, task
            b.backend.inputs.clear()
            assert await asyncio.to_thread(freed.wait, 5)
        finally:
            gc.enable()
