"""Groups the requests of one loaded version into batches and hands them to its instances.

The asyncio shell around `batch_policy` (when does a batch leave?), `batch_queue` (who is in it?),
`instance_pool` (where does it run?) and `execution` (run it). All of it belongs to the event
loop; the only work elsewhere is `execution.run`, on an instance's thread.

What it promises:
* Work-conserving: an idle instance takes what is there at once; while all are busy requests
  gather. A window holds only where an operator set one.
* Rows are counted, not requests. A request of more than `max_batch` rows is split and its answer
  reassembled. Requests whose other dimensions differ do not share a batch, unless padded.
* A full queue is refused with the predicted wait. An entry whose deadline or queue timeout has
  passed, or whose caller has left, is dropped before it is run, and never hurts its batch-mates.
* New settings are in force with the next batch.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from protos.signature import Signature
from server import execution
from server.admission import policy_of, priority_of, queue_timeout_s
from server.batch_entry import Answer, Assembly, Entry
from server.batch_policy import (
    BatchSettings,
    Hold,
    QueuePolicy,
    TimeoutAction,
    Waiting,
    decide,
    predicted_wait_s,
)
from server.batch_queue import DELAYED, BatchQueue, Group
from server.errors import (
    BackendError,
    DeadlineExceeded,
    ModelNotReady,
    QueueFull,
    ServeError,
    WrongState,
)
from server.execution import Outcome, Plan
from server.grouping import Grouping
from server.instance_pool import InstancePool, Lease
from server.probe import Profile
from server.request import InferRequest, ReleaseReason, Timing
from server.run_time import RunTime
from server.statistics import DropReason, VersionStatistics

_ALONE_STREAK = 2  # batches that nobody joined or followed before the wide instance is used


@dataclass(slots=True, eq=False)
class _Batch:
    """Entries that were taken together, and later what became of them."""

    entries: list[Entry]
    taken: float
    reason: ReleaseReason
    outcome: Outcome | None = None

    def run(self, plan: Plan) -> None:
        self.outcome = execution.run(plan, [entry.part for entry in self.entries])


class Batcher:
    """The queue and the instances of one loaded version. Belongs to the event loop."""

    def __init__(
        self,
        model: str,
        signature: Signature,
        profile: Profile,
        *,
        settings: BatchSettings,
        pool: InstancePool,
        statistics: VersionStatistics,
        on_health: Callable[[str], None],
    ) -> None:
        """`on_health` is told why an instance broke or hung (and was replaced).

        It is called with an empty text when a batch has been answered since.
        """
        self.settings = settings
        self.pool = pool
        self._model, self._profile, self._statistics = model, profile, statistics
        self._on_health = on_health
        self._is_suspect = False
        self._grouping = Grouping(signature, profile)
        self._queue: BatchQueue[Entry] = BatchQueue()
        self._running: dict[_Batch, Lease] = {}
        self._sequence = 0
        # A run on a GPU waits for what other models run there, one in another process for a new
        # one where that has died: it must not hold the loop.
        is_steady = self._grouping.is_steady and pool.is_steady
        self._run_time = RunTime(profile, is_steady=is_steady)
        self._instant_reason = (
            ReleaseReason.IDLE_INSTANCE if profile.batchable else ReleaseReason.UNBATCHED
        )
        self._narrow = pool.narrow
        self._alone_streak = 0
        self._wake_up: asyncio.TimerHandle | None = None
        self._pump_is_due = False
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._last_in_order: asyncio.Future[None] | None = None

    def predicted_wait_s(self) -> float:
        """How long a request that came now would wait before it is taken."""
        limit = self._limit()
        return predicted_wait_s(
            self._queue.rows if limit else self._queue.entries,
            len(self._running),
            self.pool.size,
            limit or 1,
            self._run_time.average_s,
        )

    def apply(self, settings: BatchSettings) -> None:
        """Puts new settings in force, from the next batch on.

        Raises:
            WrongState: a batch size for a model whose requests run one by one.
        """
        if settings.max_batch > 1 and not self._profile.batchable:
            raise WrongState(
                f"model '{self._model}': max_batch must be 1, got {settings.max_batch}, since its"
                f" requests run one by one: {self._profile.reason}"
            )
        self.settings = settings
        self._pump_soon()

    async def submit(self, request: InferRequest) -> Answer:
        """Queues a validated request and waits for its outputs.

        Raises:
            QueueFull, DeadlineExceeded, InvalidRequest (priority), BackendError, ModelNotReady.
        """
        now = time.monotonic()
        self._refuse(request, now)
        rows = self._grouping.rows(request.inputs)
        if self._run_time.is_instant(rows) and self._has_no_reason_to_queue():
            return self._answer_instantly(request, rows, now)
        assembly = self._admit(request, rows, now)
        try:
            if self.settings.preserve_ordering:
                return await self._in_turn(assembly)
            return await assembly.future
        except asyncio.CancelledError:
            assembly.abandon()
            if self._forget(assembly.entries):
                self._statistics.record_dropped("cancelled")
            raise
        finally:
            # Entries know their assembly, and a failure this frame: cycles that would keep the
            # request's tensors until Python's collector comes by.
            assembly.entries.clear()
            del assembly

    async def _in_turn(self, assembly: Assembly) -> Answer:
        """Waits for the answers to the requests before (whatever they were), then for this one."""
        before, mine = self._last_in_order, self._loop.create_future()
        self._last_in_order = mine
        try:
            if before is not None:
                await asyncio.shield(before)
            return await assembly.future
        finally:
            if before is None or before.done():
                mine.set_result(None)
            else:  # the caller has left, and whoever comes after it still has its turn to wait for
                before.add_done_callback(lambda _: mine.set_result(None))

    def check(self, now: float, hang_timeout_s: float) -> None:
        """The heartbeat: replaces every instance whose batch runs longer than `hang_timeout_s`."""
        for batch, lease in [*self._running.items()]:
            if now - batch.taken > hang_timeout_s:
                del self._running[batch]
                self.pool.replace(lease)
                text = f"an instance did not return within {hang_timeout_s:g} s and was replaced"
                self._fail(batch.entries, BackendError(f"model '{self._model}': {text}"))
                self._suspect(text)
                self._pump_soon()

    def close(self) -> None:
        """Refuses what waits and comes; what runs is still answered."""
        self._is_closed = True
        waiting = self._queue.drain()
        self._fail(waiting, self._unloaded())
        self._forget(waiting)
        self._end_hold()
        self.pool.close(self._pump)

    # -- at once -------------------------------------------------------------------------------

    def _has_no_reason_to_queue(self) -> bool:
        settings = self.settings
        return not (self._queue.entries or settings.window_s > 0.0 or settings.preserve_ordering)

    def _answer_instantly(self, request: InferRequest, rows: int, started: float) -> Answer:
        if request.priority:
            priority_of(request.priority, self.settings, self._model)
        outputs = execution.run_single(self._narrow, request.inputs, rows, request.output_names)
        infer_s = time.monotonic() - started
        self._run_time.add(infer_s)
        reason = self._instant_reason
        self._statistics.record_batch(rows, 1, 0.0, infer_s, 0.0, reason)
        return outputs, Timing(0.0, 0.0, 0.0, infer_s, 0.0, rows, 1, 0, 0.0, reason)

    # -- in ------------------------------------------------------------------------------------

    def _refuse(self, request: InferRequest, now: float) -> None:
        if self._is_closed:
            raise self._unloaded()
        if request.deadline is not None and request.deadline <= now:
            self._statistics.record_dropped("deadline")
            raise DeadlineExceeded("the deadline had passed when the request arrived")

    def _admit(self, request: InferRequest, rows: int, now: float) -> Assembly:
        priority = priority_of(request.priority, self.settings, self._model)
        policy = policy_of(priority, self.settings)
        if policy.queue_limit and self._queue.waiting_at(priority) >= policy.queue_limit:
            self._statistics.record_dropped("queue_full")
            raise QueueFull(
                f"Exceeds maximum queue size: model '{self._model}' has {policy.queue_limit}"
                f" requests waiting",
                self.predicted_wait_s(),
            )
        if self._running:
            self._alone_streak = 0
        return self._enqueue(request, rows, priority, policy, now)

    def _enqueue(
        self, request: InferRequest, rows: int, priority: int, policy: QueuePolicy, now: float
    ) -> Assembly:
        assembly = Assembly(self._loop.create_future())
        deadline = math.inf if request.deadline is None else request.deadline
        group = self._grouping.group_of(request.inputs, rows)
        timeout_s = queue_timeout_s(policy, request)
        for part in self._grouping.parts_of(request, rows, self.settings.max_batch):
            self._sequence += 1
            entry = Entry(self._sequence, priority, group, part.rows, part, assembly, now, deadline)
            assembly.entries.append(entry)
            assembly.answers.append(None)
            self._queue.add(entry)
            if timeout_s is not None:
                entry.timer = self._loop.call_later(timeout_s, self._queue_timeout, entry, policy)
        self._statistics.queue_depth = len(self._queue)
        self._pump_soon()
        return assembly

    def _queue_timeout(self, entry: Entry, policy: QueuePolicy) -> None:
        if not self._queue.remove(entry):
            return
        if policy.timeout_action is TimeoutAction.DELAY:
            entry.priority += DELAYED
            self._queue.add(entry)
            return
        self._note_shorter_queue()
        self._drop(entry, "queue_timeout", DeadlineExceeded("Request timeout expired"))

    # -- out -----------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        """Forms batches after the requests that this turn of the loop brings have all come."""
        if not self._pump_is_due:
            self._pump_is_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Starts batches until the queue, the instances or the compute slots are used up."""
        self._pump_is_due = False
        self._end_hold()
        while self._queue.entries and self.pool.has_idle:
            choice = self._choose()
            if isinstance(choice, Hold):
                delay = max(0.0, choice.until - time.monotonic())
                self._wake_up = self._loop.call_later(delay, self._pump)
                return
            group, reason = choice
            if self._run_time.is_inline(self._queue.rows_of(group, self._limit())):
                self._run_inline(group, reason)
                if self._queue.entries:
                    self._pump_soon()  # others have a turn of the loop in between
                return
            lease = self.pool.lease(self._run_time.average_s, self._is_alone(), self._pump)
            if lease is None:
                return
            self._start(lease, group, reason)

    def _end_hold(self) -> None:
        if self._wake_up is not None:
            self._wake_up.cancel()
            self._wake_up = None

    def _choose(self) -> tuple[Group, ReleaseReason] | Hold:
        """The group whose batch leaves now, or how long to hold all of them."""
        if not self._profile.batchable:
            return self._queue.head_group(), ReleaseReason.UNBATCHED
        if self.settings.window_s <= 0.0:
            group = self._queue.head_group()
            rows = self._queue.rows_of(group, self.settings.max_batch)
            return group, (
                ReleaseReason.FULL
                if rows >= self.settings.max_batch
                else ReleaseReason.IDLE_INSTANCE
            )
        now = time.monotonic()
        until = math.inf
        for group in self._queue.groups():
            verdict = decide(self._waiting(group), self.settings, self._run_time.average_s, now)
            if not isinstance(verdict, Hold):
                return group, verdict
            until = min(until, verdict.until)
        return Hold(until)

    def _waiting(self, group: Group) -> Waiting:
        rows, oldest, deadline = 0, math.inf, math.inf
        for entry in self._queue.of_group(group):
            rows += entry.rows
            oldest = min(oldest, entry.enqueued)
            deadline = min(deadline, entry.deadline)
        return Waiting(rows, oldest, deadline)

    def _is_alone(self) -> bool:
        """Whether what waits is one batch, and there was nothing but single batches lately."""
        return (
            self._alone_streak >= _ALONE_STREAK
            and not self._running
            and (self._queue.entries == 1 or self._queue.rows <= self._limit())
        )

    def _limit(self) -> int:
        """Most rows of a batch; 0: requests run one by one, whatever their rows."""
        return self.settings.max_batch if self._profile.batchable else 0

    def _run_inline(self, group: Group, reason: ReleaseReason) -> None:
        batch = self._take(group, reason)
        if batch is not None:
            batch.run(self._narrow)
            self._complete(batch)

    def _start(self, lease: Lease, group: Group, reason: ReleaseReason) -> None:
        batch = self._take(group, reason)
        if batch is None:
            self.pool.give_back(lease)
            return
        if not self._running and not self._queue.entries:
            self._alone_streak += 1
        self._running[batch] = lease
        lease.instance.run(partial(batch.run, lease.plan), partial(self._finish, batch))

    def _take(self, group: Group, reason: ReleaseReason) -> _Batch | None:
        """The next batch of a group; None where nobody waits for any of it any more."""
        now = time.monotonic()
        taken = self._queue.take(group, self._limit())
        self._statistics.queue_depth = len(self._queue)
        entries = [entry for entry in taken if self._is_wanted(entry, now)]
        return _Batch(entries, now, reason) if entries else None

    def _is_wanted(self, entry: Entry, now: float) -> bool:
        """Drops an entry that nobody waits for any more."""
        if entry.timer is not None:
            entry.timer.cancel()
        if entry.assembly.is_done:
            return False
        if entry.deadline <= now:
            error = DeadlineExceeded("the deadline passed while the request was queued")
            self._drop(entry, "deadline", error)
            return False
        return True

    # -- back ----------------------------------------------------------------------------------

    def _finish(self, batch: _Batch, error: BaseException | None) -> None:
        """A batch has come back: starts the next one first, then answers (whatever that did)."""
        try:
            self.pool.give_back(self._running.pop(batch))
            self._pump()
        finally:
            self._settle(batch, error)

    def _settle(self, batch: _Batch, error: BaseException | None) -> None:
        if error is None:
            self._complete(batch)
            return
        text = f"an instance broke ({type(error).__name__}) and was replaced"
        self._fail(batch.entries, BackendError(f"model '{self._model}': {text}"))
        self._suspect(text)

    def _complete(self, batch: _Batch) -> None:
        outcome = batch.outcome
        assert outcome is not None
        self._answer(batch, outcome)
        answered = [
            entry.rows
            for entry, result in zip(batch.entries, outcome.results, strict=True)
            if isinstance(result, dict)
        ]
        if answered:
            self._count(outcome, sum(answered), len(answered), batch.reason)

    def _count(self, outcome: Outcome, rows: int, requests: int, reason: ReleaseReason) -> None:
        """A run that answered somebody: what failed says nothing of how long runs take."""
        self._run_time.add(outcome.infer_s)
        self._statistics.record_batch(
            rows, requests, outcome.input_s, outcome.infer_s, outcome.output_s, reason
        )
        if self._is_suspect:
            self._is_suspect = False
            self._on_health("")

    def _suspect(self, reason: str) -> None:
        self._is_suspect = True
        self._on_health(reason)

    def _answer(self, batch: _Batch, outcome: Outcome) -> None:
        rows = sum(entry.rows for entry in batch.entries)
        position = 0
        for entry, result in zip(batch.entries, outcome.results, strict=True):
            if isinstance(result, ServeError):
                self._fail([entry], result)
            else:
                waited = batch.taken - entry.enqueued
                timing = _timing(outcome, waited, rows, len(batch.entries), batch.reason)
                timing.batch_position = position
                entry.assembly.add(entry, result, timing)
            position += entry.rows

    def _drop(self, entry: Entry, reason: DropReason, error: ServeError) -> None:
        self._statistics.record_dropped(reason)
        self._fail([entry], error)

    def _fail(self, entries: Iterable[Entry], error: ServeError) -> None:
        """Fails the requests of these entries, and takes their other slices out of the queue."""
        for entry in entries:
            entry.assembly.fail(error)
            if len(entry.assembly.entries) > 1:
                self._forget(entry.assembly.entries)

    def _forget(self, entries: Iterable[Entry]) -> bool:
        """Takes entries out of the queue; False when none of them waits any more."""
        removed = False
        for entry in entries:
            if entry.timer is not None:
                entry.timer.cancel()
            removed |= self._queue.remove(entry)
        self._note_shorter_queue()
        return removed

    def _note_shorter_queue(self) -> None:
        """After entries have left it without being taken."""
        self._statistics.queue_depth = len(self._queue)
        if not self._queue.entries:
            self.pool.wait_no_more(self._pump)

    def _unloaded(self) -> ModelNotReady:
        return ModelNotReady(f"model '{self._model}' is being unloaded")


def _timing(
    outcome: Outcome, queue_s: float, rows: int, requests: int, reason: ReleaseReason
) -> Timing:
    return Timing(
        0.0,
        queue_s,
        outcome.input_s,
        outcome.infer_s,
        outcome.output_s,
        rows,
        requests,
        0,
        outcome.padding_ratio,
        reason,
    )
