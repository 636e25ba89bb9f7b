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
        self._has_turn = False  # the one being called, until it has started a run
        self._waiters: OrderedDict[Callable[[], None], float] = OrderedDict()  # with their run_s

    @property
    def is_idle(self) -> bool:
        """Nothing computes at all."""
        return self.free == self.total and self._express_free

    def take(self, threads: int, run_s: float, waiter: Callable[[], None]) -> int | None:
        """Slots for one run, to be handed back to `give`; None: `waiter` will be called.

        A run that wants more threads than there are takes all of them. `run_s` is its expected
        length. `EXPRESS` stands for the express slot. A run of no threads, which is one on a GPU,
        never waits. `waiter` is to try again before it returns: what it leaves free goes to others.
        """
        wanted = min(threads, self.total)
        if not wanted:
            return 0
        if wanted <= self.free and (self._has_turn or not self._waiters):
            self.free -= wanted
            self._has_turn = False
            return wanted
        if self._express_free and _is_short(run_s):
            self._express_free = False
            return EXPRESS
        self._waiters[waiter] = run_s
        # Who could not start keeps its place, or a run of several threads would starve; who has
        # started one and wants more goes behind the others, or they would.
        self._waiters.move_to_end(waiter, last=not self._has_turn)
        return None

    def give(self, taken: int) -> None:
        """Hands slots back and calls those who wait, oldest first, until one cannot start."""
        if taken == EXPRESS:
            self._express_free = True
        else:
            self.free += taken
        self._serve()

    def forget(self, waiter: Callable[[], None]) -> None:
        """The waiter wants nothing any more and must not be called; those behind it may start."""
        if self._waiters.pop(waiter, None) is not None:
            self._serve()

    def _serve(self) -> None:
        if self._serving or not self._waiters:
            return
        self._serving = True
        try:
            self._lend()
            self._lend_express()
        finally:
            self._serving = self._has_turn = False

    def _lend(self) -> None:
        while self._waiters and self.free:
            waiter, _ = self._waiters.popitem(last=False)
            self._has_turn = True
            waiter()
            if self._has_turn and waiter in self._waiters:
                break

    def _lend_express(self) -> None:
        """Those whose runs are short need not wait for the long ones before them."""
        self._has_turn = False
        for waiter in [each for each, run_s in self._waiters.items() if _is_short(run_s)]:
            if not self._express_free:
                break
            del self._waiters[waiter]
            waiter()


def _is_short(run_s: float) -> bool:
    return 0.0 < run_s <= EXPRESS_S
