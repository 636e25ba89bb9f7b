"""What a batch costs, by its size; and from which size on a larger one gains nothing.

On CPUs bigger is often worse (MiniLM, 128 tokens: 64 rows/s at batch 4, 44 at batch 32), so the
largest batch is chosen from measurements of the model at hand.
"""

import time
from collections.abc import Callable, Mapping

import numpy as np

from optimizer.runner import Run
from protos.tensors import Array
from server.probe import CurvePoint

AUTO_LIMIT = 64  # largest batch that is tried where nobody says
GROWTH = 1.03  # more rows per second than this times the best so far is growth
_STALE = 2  # sizes without growth before measuring ends
_MIN_RUNS, _MAX_RUNS = 3, 20
_SHARE = 0.2  # of the budget that one size may take when its runs are short

Clock = Callable[[], float]


def sizes(limit: int) -> list[int]:
    """1, 2, 4, … and the limit itself: the batch sizes that are measured and warmed up."""
    powers = [2**power for power in range(limit.bit_length()) if 2**power < limit]
    return [*powers, limit]


def measure(
    run: Run,
    make: Callable[[int], Mapping[str, Array]],
    limit: int,
    budget_s: float,
    clock: Clock = time.perf_counter,
) -> tuple[CurvePoint, ...]:
    """Times batches of 1, 2, 4, … `limit` rows, ascending.

    Ends early after two sizes without more rows per second, when the next size would exceed the
    budget, or when a size fails (out of memory, say). Batch 1 is always there.
    """
    ends = clock() + budget_s
    curve: list[CurvePoint] = []
    best = 0.0
    stale = 0
    for batch in sizes(limit):
        if curve and _predicted_s(curve[-1], batch) > ends - clock():
            break
        try:
            point = _point(run, make(batch), batch, budget_s * _SHARE, clock)
        except Exception:
            if not curve:
                raise
            break
        curve.append(point)
        stale = 0 if point.rows_per_s > GROWTH * best else stale + 1
        best = max(best, point.rows_per_s)
        if stale >= _STALE:
            break
    return tuple(curve)


def choose(curve: tuple[CurvePoint, ...], limit: int) -> tuple[int, str]:
    """The smallest batch within 3 % of the best throughput, and the numbers behind that."""
    best = max(curve, key=lambda point: point.rows_per_s)
    chosen = next(p for p in curve if p.rows_per_s * GROWTH >= best.rows_per_s)
    last = curve[-1]
    if chosen.batch == limit:
        return limit, f"throughput grows up to the limit of {limit}: {_rate(chosen)}"
    if chosen is last:
        return chosen.batch, f"the largest batch that could be measured: {_rate(chosen)}"
    beyond = next(p for p in curve if p.batch > chosen.batch)
    return chosen.batch, f"{_rate(chosen)}; larger gains nothing: {_rate(beyond)}"


def _rate(point: CurvePoint) -> str:
    rate = point.rows_per_s
    shown = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return f"{shown} rows/s at batch {point.batch}"


def _predicted_s(last: CurvePoint, batch: int) -> float:
    return (_MIN_RUNS + 1) * last.latency_s * batch / last.batch


def _point(
    run: Run, inputs: Mapping[str, Array], batch: int, share_s: float, clock: Clock
) -> CurvePoint:
    run(inputs)  # the first run of a shape plans its memory
    runs: list[float] = []
    while len(runs) < _MAX_RUNS:
        started = clock()
        run(inputs)
        runs.append(clock() - started)
        total = sum(runs)
        if total > share_s and (len(runs) >= _MIN_RUNS or total > _MIN_RUNS * share_s):
            break
    return CurvePoint(batch, float(np.median(runs)), min(runs))
