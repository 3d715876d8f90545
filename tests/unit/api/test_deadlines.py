import asyncio
from collections.abc import Callable

import pytest

from gateway.api import deadlines as module
from gateway.api.deadlines import Deadlines


class Connection:
    """Counts how often it had to give up."""

    def __init__(self, due_s: float, *, is_failing: bool = False) -> None:
        self.due_s = due_s
        self.has_given_up = False
        self._is_failing = is_failing

    def give_up(self) -> None:
        self.due_s = float("inf")
        self.has_given_up = True
        if self._is_failing:
            raise RuntimeError("boom")


async def until(is_done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_done():
            await asyncio.sleep(0.005)


async def test_one_timer_gives_up_what_is_overdue_even_when_one_of_them_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_S", 0.01)
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["message"]))
    deadlines = Deadlines()
    good, patient = Connection(0.0), Connection(float("inf"))
    bad = [Connection(0.0, is_failing=True) for _ in range(8)]  # so many that the good one is hardly the first
    for connection in (good, patient, *bad):
        deadlines.watch(connection)
    await until(lambda: good.has_given_up and all(one.has_given_up for one in bad))
    assert len(failures) == len(bad)
    assert not patient.has_given_up
    assert deadlines._sweeper is not None
    for connection in (good, patient, *bad):
        deadlines.forget(connection)
    await until(lambda: deadlines._sweeper is None)


async def test_what_is_forgotten_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_S", 0.01)
    deadlines = Deadlines()
    gone, here = Connection(0.0), Connection(0.0)
    deadlines.watch(gone)
    deadlines.watch(here)
    deadlines.forget(gone)
    await until(lambda: here.has_given_up)
    assert not gone.has_given_up
