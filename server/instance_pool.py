"""The instances of one loaded version, and which of them a batch should run on.

A version has `n` narrow instances, which share one session and usually take one compute thread
each: the layout that carries most when several batches can run side by side. Where it was
measured to pay, it also has one wide instance with all planned threads, for a batch that runs
alone: a lone client is answered up to twice as fast, and under load the wide one is not used.
"""

from collections.abc import Callable
from dataclasses import dataclass

from server.execution import Plan
from server.instance import Instance
from server.slots import ComputeSlots


@dataclass(slots=True, eq=False)
class Lease:
    """An instance with the compute slots it runs on, held for one batch."""

    instance: Instance
    plan: Plan
    slots: int


class InstancePool:
    """Lends instances and compute slots together. Belongs to the event loop."""

    def __init__(
        self, name: str, narrow: Plan, wide: Plan | None, instances: int, slots: ComputeSlots
    ) -> None:
        self.size = instances
        self.leased: set[Lease] = set()
        self.n_replaced = 0
        self.n_inside = 0  # threads inside a backend: runs under way, and those given up on
        self.on_empty: Callable[[], None] = _nothing  # called when `n_inside` has become 0
        self.narrow = narrow
        self._name, self._wide, self._slots = name, wide, slots
        self._idle = [self._instance(narrow, index) for index in range(instances)]
        self._idle_wide = None if wide is None else self._instance(wide, instances)

    @property
    def is_steady(self) -> bool:
        """Whether runs last as long as they did at load: here, and on compute slots."""
        return _is_on_cpu(self.narrow) and self.narrow.backend.is_in_process

    @property
    def has_idle(self) -> bool:
        return bool(self._idle)

    def lease(self, run_s: float, alone: bool, waiter: Callable[[], None]) -> Lease | None:
        """An idle instance with slots; None: `waiter` is called when slots are free again.

        Call only when `has_idle`. `alone`: the batch has the version to itself.
        """
        if alone and self._idle_wide is not None and self._wide is not None and self._slots.is_idle:
            wide = self._idle_wide
            taken = self._slots.take(wide.threads, run_s, waiter)
            if taken is not None:
                self._idle_wide = None
                return self._lent(wide, self._wide, taken)
        taken = self._slots.take(self._idle[-1].threads, run_s, waiter)
        return None if taken is None else self._lent(self._idle.pop(), self.narrow, taken)

    def give_back(self, lease: Lease) -> None:
        """Ends a lease; a batch that waits for slots anywhere may start within this call."""
        self._left()
        self._return(lease, lease.instance)

    def replace(self, lease: Lease) -> None:
        """Ends a lease whose instance hangs: a new thread takes its place."""
        lease.instance.abandon(self._left)
        lease.plan.backend.interrupt(lease.instance.thread_id)
        self.n_replaced += 1
        self._return(lease, self._instance(lease.plan, self.size + self.n_replaced))

    def wait_no_more(self, waiter: Callable[[], None]) -> None:
        """The waiter has nothing left to run, and holds back nobody who waits behind it."""
        self._slots.forget(waiter)

    def close(self, waiter: Callable[[], None]) -> None:
        """Ends the idle instances' threads; leased ones end after their batch.

        `waiter` is not called any more.
        """
        self._slots.forget(waiter)
        for instance in self._idle:
            instance.close()
        if self._idle_wide is not None:
            self._idle_wide.close()
        for lease in self.leased:
            lease.instance.close()

    def interrupt(self) -> None:
        """Ends the runs under way where that is possible: nobody wants their answers."""
        for lease in self.leased:
            lease.plan.backend.interrupt(lease.instance.thread_id)

    def _lent(self, instance: Instance, plan: Plan, taken: int) -> Lease:
        lease = Lease(instance, plan, taken)
        self.leased.add(lease)
        self.n_inside += 1
        return lease

    def _left(self) -> None:
        self.n_inside -= 1
        if not self.n_inside:
            self.on_empty()

    def _return(self, lease: Lease, instance: Instance) -> None:
        self.leased.discard(lease)
        if lease.plan is self._wide:
            self._idle_wide = instance
        else:
            self._idle.append(instance)
        self._slots.give(lease.slots)

    def _instance(self, plan: Plan, index: int) -> Instance:
        threads = plan.backend.threads if _is_on_cpu(plan) else 0
        return Instance(f"{self._name}-{index}", threads)


def _nothing() -> None:
    """Nobody has asked to be told."""


def _is_on_cpu(plan: Plan) -> bool:
    return any(device == "cpu" for device in plan.backend.devices)
