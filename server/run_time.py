"""How long one version's runs take, and which of them are too short to be worth a detour.

Two thread switches to an instance and back cost more than a tiny model's run. So a batch that was
measured to be shorter is run on the loop itself (`INLINE_S`), and a request whose run costs less
than its way through the queue does not even queue (`INSTANT_S`). Both need inputs of one size
but for the rows (no texts), and the CPU, so that a run is as long as the curve measured at load
says; and they end when runs turn out longer than that.
"""

from server.probe import Profile

INLINE_S = 0.0002  # longest run that the loop does itself
INSTANT_S = 0.00005  # longest run of one request that is not worth queueing for company
_SMOOTHING = 0.2  # weight of the newest run in the moving average


class RunTime:
    """The moving average of one version's run times, beginning with what was measured at load."""

    __slots__ = ("_inline_rows", "_instant_rows", "average_s")

    def __init__(self, profile: Profile, *, is_steady: bool) -> None:
        """`is_steady`: all runs of so many rows take as long as each other."""
        self.average_s = profile.curve[0].latency_s if profile.curve else 0.0
        self._inline_rows = _rows_within(INLINE_S, profile) if is_steady else 0
        self._instant_rows = _rows_within(INSTANT_S, profile) if is_steady else 0

    def add(self, run_s: float) -> None:
        self.average_s += _SMOOTHING * (run_s - self.average_s)

    def is_inline(self, rows: int) -> bool:
        """Whether the loop itself runs a batch of so many rows."""
        return 0 < rows <= self._inline_rows and self.average_s <= INLINE_S

    def is_instant(self, rows: int) -> bool:
        """Whether a request of so many rows is run at once."""
        return 0 < rows <= self._instant_rows and self.average_s <= INLINE_S


def _rows_within(limit_s: float, profile: Profile) -> int:
    """Rows of the largest measured batch that, like all smaller ones, is short enough."""
    rows = 0
    for point in profile.curve:
        if point.latency_s > limit_s:
            break
        rows = point.batch
    return rows
