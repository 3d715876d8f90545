import asyncio
from collections.abc import Sequence

import pytest

from gateway.control import runner as module
from gateway.control.runner import Duty, Runner
from gateway.control.standing import Standing
from gateway.errors import StateUnavailable
from gateway.state import Lease, LeaseLost
from gateway.state.sqlite import SqliteStore
from gateway.tasks import TaskSet
from tests.support.fake_engines import until


class Bench:
    """Gateways that share one store; `done` tells who did its duty under which token."""

    def __init__(self) -> None:
        self.store = SqliteStore(None)
        self.tasks = TaskSet()
        self.done: list[tuple[str, int, list[Standing]]] = []

    def start(self, name: str, *more: Duty) -> Runner:
        async def note(lease: Lease, standings: Sequence[Standing]) -> None:
            self.done.append((name, lease.token, list(standings)))

        runner = Runner(self.store, name, lambda: Standing([name]), [*more, note])
        self.tasks.start(runner.run(), name)
        return runner

    async def end(self) -> None:
        await self.tasks.close()
        await self.store.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY_S", 0.01)
    monkeypatch.setattr(module, "_LEASE_S", 0.1)


async def test_one_of_many_does_the_duties_and_knows_of_the_others() -> None:
    bench = Bench()
    one = bench.start("a")
    await until(lambda: bool(bench.done))
    other = bench.start("b")
    await until(lambda: len(bench.done[-1][2]) == 2)
    assert {name for name, _, _ in bench.done} == {"a"}
    assert bench.done[-1][2] == [Standing(["b"]), Standing(["a"])]
    await until(lambda: set(other.gateways) == {"a", "b"})
    await until(lambda: [name for name, told in other.gateways.items() if told.acts] == ["a"])
    assert (one.lease is not None, other.lease) == (True, None)
    await bench.end()


async def test_another_takes_over_at_once_from_one_that_closes() -> None:
    bench = Bench()
    tasks, bench.tasks = bench.tasks, TaskSet()
    first = bench.start("a")
    await until(lambda: bool(bench.done))
    bench.tasks, mine = tasks, bench.tasks
    bench.start("b")
    await mine.close()
    await first.close()
    await until(lambda: bench.done[-1][0] == "b")
    assert bench.done[-1][1] > bench.done[0][1]
    await bench.end()


async def test_another_takes_over_from_one_that_died() -> None:
    bench = Bench()
    assert await bench.store.hold("runner", "dead", 0.05) is not None
    bench.start("b")
    await until(lambda: bool(bench.done))
    await bench.end()


async def test_it_does_not_wait_when_something_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY_S", 60)
    bench = Bench()
    runner = bench.start("a")
    await until(lambda: len(bench.done) == 1)
    runner.wake()
    await until(lambda: len(bench.done) == 2)
    await bench.end()


@pytest.mark.parametrize("fault", [StateUnavailable("away"), LeaseLost("runner"), RuntimeError("a defect")])
async def test_a_duty_that_fails_is_done_again(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    faults = [fault, fault]

    async def fail(lease: Lease, standings: Sequence[Standing]) -> None:
        if faults:
            raise faults.pop()

    bench = Bench()
    bench.start("a", fail)
    await until(lambda: len(bench.done) > 1)
    assert ("the runner failed" in caplog.text) == isinstance(fault, RuntimeError)
    await bench.end()


async def test_a_duty_that_has_a_defect_keeps_no_other_from_being_done() -> None:
    async def fail(lease: Lease, standings: Sequence[Standing]) -> None:
        raise RuntimeError("a defect")

    bench = Bench()
    bench.start("a", fail)
    await until(lambda: len(bench.done) > 1)
    await bench.end()


async def test_closing_without_a_state_is_no_failure() -> None:
    bench = Bench()
    runner = bench.start("a")
    await until(lambda: runner.lease is not None)
    await bench.tasks.close()

    async def fail(lease: Lease) -> None:
        raise StateUnavailable("away")

    bench.store.release = fail  # type: ignore[method-assign]
    await runner.close()
    await asyncio.sleep(0)
    await bench.store.close()
