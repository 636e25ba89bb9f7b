"""A thread that comes with the work and goes without it."""

import asyncio
import threading
import weakref

import pytest

from server import instance as instance_module
from server.instance import Instance, Work


async def run(instance: Instance, work: Work) -> BaseException | None:
    done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    instance.run(work, done.set_result)
    return await done


async def test_work_runs_on_one_thread_that_is_kept() -> None:
    instance, names = Instance("one", 1), []
    for _ in range(3):
        await run(instance, lambda: names.append(threading.current_thread()))
    assert len(set(names)) == 1
    assert names[0].name == "one"
    instance.close()
    await asyncio.to_thread(names[0].join)


async def test_work_that_breaks_its_thread_is_reported_and_the_next_gets_a_new_one() -> None:
    instance = Instance("one", 1)

    def broken() -> None:
        raise SystemExit(3)

    assert isinstance(await run(instance, broken), SystemExit)
    assert not instance.is_busy
    assert await run(instance, lambda: None) is None
    instance.close()


async def test_work_whose_thread_cannot_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    instance = Instance("one", 1)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert isinstance(await run(instance, lambda: None), RuntimeError)
    assert not instance.is_busy
    assert await run(instance, lambda: None) is None, "and the next work may have one"
    instance.close()


async def test_an_idle_instance_keeps_nothing_of_its_last_work() -> None:
    class Tensor:
        """Large, and to be freed as soon as it was answered."""

        def work(self) -> None:
            pass

    instance, freed = Instance("one", 1), threading.Event()
    tensor = Tensor()
    weakref.finalize(tensor, freed.set)
    await run(instance, tensor.work)
    del tensor
    assert await asyncio.to_thread(freed.wait, 5)
    instance.close()


async def test_of_abandoned_work_only_its_return_is_heard() -> None:
    instance, gate = Instance("one", 1), threading.Event()
    calls: list[BaseException | None] = []
    ended = asyncio.Event()

    def hang() -> None:
        gate.wait()

    instance.run(hang, calls.append)
    thread = instance._thread
    instance.abandon(ended.set)
    assert not ended.is_set()
    gate.set()
    assert thread is not None
    await asyncio.to_thread(thread.join)
    await ended.wait()
    assert calls == []


async def test_an_idle_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_module, "IDLE_END_S", 0.001)
    instance = Instance("one", 1)
    await run(instance, lambda: None)
    thread = instance._thread
    if thread is not None:
        await asyncio.to_thread(thread.join)
    assert await run(instance, lambda: None) is None, "and comes again with the next work"
    instance.close()
