"""The machine's compute threads, shared by all models: nobody starts what the cores cannot carry.

A run takes as many slots as it uses threads and gives them back when it ends. Whoever finds no
slot is called, in the order of asking, when one is free; its requests wait in its own queue
meanwhile, where they are seen and still batch. So however many models are loaded, at most
`total` threads compute at a time, with one exception: beside long runs of other models, one
short run (`EXPRESS_S` or less) may start at a time, since a request of 50 us should not queue
behind a batch of half a second for the sake of a core that the scheduler shares well.
"""

from collections import OrderedDict
from collections.abc import Callable

EXPRESS_S = 0.002  # longest run that may start although all slots are taken
EXPRESS = -1  # stands for the express slot among numbers of slots


class ComputeSlots:
    """Counts the compute threads in use. Belongs to the event loop."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._express_free = True
        self._serving = False  # waiters are being called
        self._waiters: OrderedDict[Callable[[], None], None] = OrderedDict()

    @property
    def is_idle(self) -> bool:
        """Nothing computes at all."""
        return self.free == self.total and self._express_free

    def take(self, threads: int, run_s: float, waiter: Callable[[], None]) -> int | None:
        """Slots for one run, to be handed back to `give`; None: `waiter` will be called.

        A run that wants more threads than there are takes all of them. `run_s` is its expected
        length. `EXPRESS` stands for the express slot. A run of no threads, which is one on a GPU,
        never waits.
        """
        wanted = min(threads, self.total)
        if not wanted:
            return 0
        if wanted <= self.free and (self._serving or not self._waiters):
            self.free -= wanted
            return wanted
        if self._express_free and 0.0 < run_s <= EXPRESS_S:
            self._express_free = False
            return EXPRESS
        self._waiters[waiter] = None
        # Whoever was first keeps its place, or a run of several threads would starve.
        self._waiters.move_to_end(waiter, last=not self._serving)
        return None

    def give(self, taken: int) -> None:
        """Hands slots back and calls those who wait, oldest first, until one cannot start."""
        if taken == EXPRESS:
            self._express_free = True
        else:
            self.free += taken
        if self._serving:
            return
        self._serving = True
        try:
            while self._waiters and self.free:
                waiter = self._waiters.popitem(last=False)[0]
                waiter()
                if waiter in self._waiters:
                    break
        finally:
            self._serving = False

    def forget(self, waiter: Callable[[], None]) -> None:
        """The waiter is closing and must not be called any more."""
        self._waiters.pop(waiter, None)
