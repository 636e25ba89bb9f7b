"""Which runs are too short to be worth a detour."""

from server.probe import CurvePoint, Profile
from server.run_time import INLINE_S, INSTANT_S, RunTime

CURVE = tuple(
    CurvePoint(batch, latency_s, latency_s)
    for batch, latency_s in ((1, INSTANT_S / 2), (2, INSTANT_S), (4, INLINE_S), (8, 10 * INLINE_S))
)
PROFILE = Profile(batchable=True, max_batch=8, curve=CURVE)


def test_the_curve_decides() -> None:
    run_time = RunTime(PROFILE, is_steady=True)
    assert [rows for rows in range(9) if run_time.is_instant(rows)] == [1, 2]
    assert [rows for rows in range(9) if run_time.is_inline(rows)] == [1, 2, 3, 4]


def test_runs_whose_length_is_not_known_take_the_thread() -> None:
    run_time = RunTime(PROFILE, is_steady=False)
    assert not run_time.is_inline(1)
    assert not run_time.is_instant(1)


def test_runs_that_turn_out_longer_end_it_and_short_ones_bring_it_back() -> None:
    run_time = RunTime(PROFILE, is_steady=True)
    run_time.add(100 * INLINE_S)
    assert not run_time.is_inline(1)
    for _ in range(30):
        run_time.add(INSTANT_S)
    assert run_time.is_instant(1)


def test_without_a_curve_nothing_is_short() -> None:
    assert not RunTime(Profile(batchable=False), is_steady=True).is_instant(1)
