import asyncio

import pytest

from gateway.engines.want import NOT_UP, Want, Wanted
from gateway.tasks import TaskSet


async def test_who_waits_is_told_of_the_change_that_was_waited_for() -> None:
    want, tasks = Want(), TaskSet()
    waiting = tasks.start(want.until(Wanted.GONE, Wanted.ENDED), "wait")
    want.set(Wanted.DOZING)
    want.set(Wanted.ASLEEP)
    await asyncio.sleep(0)
    assert not waiting.done()
    want.set(Wanted.GONE)
    await asyncio.wait_for(waiting, 1)


async def test_what_is_wanted_already_is_not_waited_for() -> None:
    want = Want()
    want.set(Wanted.ASLEEP)
    await asyncio.wait_for(want.until(*NOT_UP), 1)


def test_what_is_to_be_gone_stays_so_and_may_only_be_hurried() -> None:
    want = Want()
    want.set(Wanted.GONE)
    want.set(Wanted.UP)
    want.set(Wanted.ASLEEP)
    assert (want.value, want.is_leaving) == (Wanted.GONE, True)
    want.set(Wanted.ENDED)
    want.set(Wanted.GONE)
    assert want.value is Wanted.ENDED


async def test_work_is_given_up_when_something_else_is_wanted() -> None:
    want, tasks, ended = Want(), TaskSet(), asyncio.Event()

    async def work() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 1

    working = tasks.start(want.while_up(work(), "e"), "work")
    await asyncio.sleep(0)
    want.set(Wanted.ASLEEP)
    assert await asyncio.wait_for(working, 5) is None
    assert ended.is_set()


async def test_work_that_is_done_in_time_gives_its_result_or_its_failure() -> None:
    async def work(fault: Exception | None) -> int:
        if fault is not None:
            raise fault
        return 5

    assert await Want().while_up(work(None), "e") == 5
    with pytest.raises(ValueError, match="no"):
        await Want().while_up(work(ValueError("no")), "e")
