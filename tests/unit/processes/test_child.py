import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.processes.child import Child, ChildSpec, ChildTiming
from gateway.processes.messages import Alive, AnyMessage, Ask, Welcome
from gateway.tasks import TaskSet
from tests.support.fake_engines import until

TIMING = ChildTiming(look_every_s=0.05, first_pause_s=0.1, longest_pause_s=0.2)


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "support"))


class Bench:
    """A child with all it said; `lives` counts its welcomes."""

    def __init__(self) -> None:
        self.said: list[AnyMessage] = []
        self.lives = 0
        self.tasks = TaskSet()

    def keep(self, behaviour: str, timing: ChildTiming = TIMING) -> Child:
        self.child = Child(
            ChildSpec("a child", "scripted_child", (behaviour,)),
            timing, self._welcome, self.said.append,
        )  # fmt: skip
        self.running = self.tasks.start(self.child.run(), "keep")
        return self.child

    def _welcome(self) -> Welcome:
        self.lives += 1
        return Welcome(f"life {self.lives}".encode())

    @property
    def words(self) -> list[str]:
        """What the last child to come up has told: its life's number, its pid."""
        told = [message.settings.decode() for message in self.said if isinstance(message, Welcome)]
        return told[-1].removeprefix("life ").split() if told else ["0"]

    @property
    def pid(self) -> int:
        return int(self.words[1])


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.child.stop()
    bench.child.kill()
    async with asyncio.timeout(10):
        await asyncio.wait((bench.running,))


async def test_it_is_welcomed_and_comes_up(bench: Bench) -> None:
    child = bench.keep("well")
    assert await child.came_up()
    assert child.starts == 1
    assert bench.words[0] == "1"


async def test_messages_go_both_ways(bench: Bench) -> None:
    child = bench.keep("well")
    await child.came_up()
    child.send(Ask(5))
    await until(lambda: Ask(5) in bench.said)


async def test_one_that_dies_is_started_again_at_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    child = bench.keep("well")
    await child.came_up()
    first = bench.pid
    with caplog.at_level(logging.ERROR):
        os.kill(first, signal.SIGKILL)
        await until(lambda: bench.words[0] == "2")
    assert (child.starts, bench.pid != first) == (2, True)
    assert caplog.messages == ["a child ended by signal 9: it is started again"]


async def test_one_that_dies_again_and_again_is_started_after_pauses(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    child = bench.keep("mortal")
    with caplog.at_level(logging.ERROR):
        await until(lambda: child.starts == 5)
    assert [message.removeprefix("a child ended with exit code 4: it is started again") for message in caplog.messages][:4] == [
        "", " in 0.1 s", " in 0.2 s", " in 0.2 s"
    ]  # fmt: skip


async def test_one_that_never_came_up_is_given_up_and_it_is_said_why(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    child = bench.keep("broken")
    assert not await child.came_up()
    assert caplog.messages == ["a child ended with exit code 3"]
    await bench.running
    assert child.starts == 1


async def test_one_that_falls_silent_is_killed_and_replaced(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    child = bench.keep("silent", replace(TIMING, silence_s=0.2))
    with caplog.at_level(logging.ERROR):
        await until(lambda: child.starts == 2)
    assert caplog.messages == ["a child said nothing for 0.2 s and was killed: it is started again"]


async def test_silence_while_the_keeper_itself_slept_does_not_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    jump_s = 0.0
    clock = time.monotonic
    monkeypatch.setattr("gateway.processes.child.time.monotonic", lambda: clock() + jump_s)
    child = bench.keep("silent", replace(TIMING, silence_s=20.0))
    await child.came_up()
    jump_s = 3600.0  # as after a machine was suspended
    await asyncio.sleep(0.3)
    assert child.starts == 1


async def test_one_that_never_says_that_it_is_up_is_given_up(bench: Bench) -> None:
    child = bench.keep("mute", replace(TIMING, start_timeout_s=1.0))
    assert not await child.came_up()


async def test_stopped_it_ends_and_is_not_started_again(bench: Bench) -> None:
    child = bench.keep("well")
    await child.came_up()
    child.stop()
    await bench.running
    assert child.starts == 1
    child.send(Alive())
    child.stop()


async def test_retired_it_lives_on_and_is_not_started_again(bench: Bench) -> None:
    child = bench.keep("well")
    await child.came_up()
    child.retire()
    await until(lambda: len(bench.said) > 5)
    os.kill(bench.pid, signal.SIGKILL)
    await bench.running
    assert child.starts == 1


async def test_stopped_before_it_is_up_it_ends_too(bench: Bench) -> None:
    child = bench.keep("well")
    child.stop()
    await bench.running
    assert not await child.came_up()


async def test_killed_it_does_not_outlive_its_keeper(bench: Bench) -> None:
    child = bench.keep("stubborn")
    await child.came_up()
    pid = bench.pid
    await bench.tasks.close()
    assert bench.running.cancelled()
    await until(lambda: not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text())
