"""Nobody starts what the cores cannot carry."""

from collections.abc import Callable

from server.slots import EXPRESS, EXPRESS_S, ComputeSlots

LONG, SHORT = 1.0, EXPRESS_S


def never() -> None:
    raise AssertionError("was called although it asked for nothing")


def test_slots_are_lent_until_none_is_left() -> None:
    slots = ComputeSlots(2)
    assert slots.take(1, LONG, never) == 1
    assert slots.take(1, LONG, never) == 1
    assert slots.take(1, LONG, never) is None


def test_a_run_that_wants_more_threads_than_there_are_takes_all() -> None:
    assert ComputeSlots(2).take(64, LONG, never) == 2


def test_the_first_to_ask_is_called_first() -> None:
    slots = ComputeSlots(1)
    called: list[str] = []
    slots.take(1, LONG, never)
    slots.take(1, LONG, waiter(called, "first", slots))
    slots.take(1, LONG, waiter(called, "second", slots))
    slots.give(1)
    assert called == ["first"]
    slots.give(1)
    assert called == ["first", "second"]


def test_a_wide_run_is_not_overtaken_for_ever() -> None:
    slots = ComputeSlots(2)
    called: list[str] = []
    for _ in range(2):
        slots.take(1, LONG, never)
    slots.take(2, LONG, waiter(called, "wide", slots, threads=2))
    slots.give(1)
    assert slots.take(1, LONG, waiter(called, "narrow", slots)) is None
    slots.give(1)
    assert called == ["wide", "wide"], "asked again when one was free, started with two"
    slots.give(2)
    assert called[-1] == "narrow"


def test_who_has_started_goes_behind_those_who_wait() -> None:
    slots = ComputeSlots(1)
    started: list[str] = []

    def greedy() -> None:
        """As a batcher with a long queue and many instances: starts until it cannot."""
        while slots.take(1, LONG, greedy):
            started.append("greedy")

    slots.take(1, LONG, never)
    greedy()
    slots.take(1, LONG, modest := waiter(started, "modest", slots))
    slots.give(1)
    slots.give(1)
    assert started == ["greedy", "modest"]
    slots.forget(modest)
    slots.give(1)
    assert started[-1] == "greedy"


def test_who_gives_up_waiting_holds_nobody_back() -> None:
    slots = ComputeSlots(2)
    called: list[str] = []
    slots.take(1, LONG, never)
    slots.take(2, LONG, wide := waiter(called, "wide", slots, threads=2))
    slots.take(1, LONG, waiter(called, "narrow", slots))
    slots.forget(wide)
    assert called == ["narrow"]
    assert slots.free == 0


def test_one_short_run_may_start_beside_long_ones() -> None:
    slots = ComputeSlots(1)
    slots.take(1, LONG, never)
    assert slots.take(1, SHORT, never) == EXPRESS
    assert slots.take(1, SHORT, never) is None
    assert not slots.is_idle
    slots.forget(never)
    slots.give(EXPRESS)
    assert slots.take(1, SHORT, never) == EXPRESS


def test_short_runs_pass_the_express_slot_on_beside_a_long_one() -> None:
    slots = ComputeSlots(1)
    called: list[str] = []
    slots.take(1, LONG, never)
    slots.take(1, LONG, waiter(called, "long", slots))
    assert slots.take(1, SHORT, never) == EXPRESS
    slots.take(1, SHORT, waiter(called, "first", slots, run_s=SHORT))
    slots.take(1, SHORT, waiter(called, "second", slots, run_s=SHORT))
    slots.give(EXPRESS)
    assert called == ["first"]
    slots.give(EXPRESS)
    assert called == ["first", "second"]
    slots.give(1)
    assert called[-1] == "long"


def test_a_run_on_a_gpu_takes_no_slot_and_never_waits() -> None:
    slots = ComputeSlots(1)
    called: list[str] = []
    assert slots.take(1, LONG, never) == 1
    assert slots.take(1, LONG, waiter(called, "cpu", slots)) is None
    assert slots.take(0, LONG, never) == 0
    slots.give(0)
    assert called == [], "nothing became free"
    slots.give(1)
    assert called == ["cpu"]


def waiter(
    called: list[str],
    name: str,
    slots: ComputeSlots,
    threads: int = 1,
    run_s: float = LONG,
) -> Callable[[], None]:
    """Notes that it was called and tries to start."""

    def try_again() -> None:
        called.append(name)
        slots.take(threads, run_s, try_again)

    return try_again
