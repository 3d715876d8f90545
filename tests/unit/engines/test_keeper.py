import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.engine import Admission, EngineState
from tests.support.fake_engines import engine_spec, until
from tests.support.keeper_bench import TIMING, KeeperBench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[KeeperBench]:
    made = KeeperBench(engine_spec(tmp_path))
    yield made
    await made.tasks.close()


async def test_what_answered_rightly_once_is_tried_again(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.probe.fault, bench.probe.is_final = "wrong", True
    bench.spawner.processes[0].end(1)
    await bench.reach(EngineState.FAILED)
    bench.probe.fault = None
    await bench.reach(EngineState.READY)


async def test_a_launch_that_fails_is_tried_again(bench: KeeperBench) -> None:
    bench.spawner.failure = OSError("no memory")
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == "the engine could not be launched: no memory"
    bench.spawner.failure = None
    await bench.reach(EngineState.READY)


@pytest.mark.parametrize("code", [0, 1, -9])
async def test_any_end_that_nobody_asked_for_is_a_failure_and_restarts(bench: KeeperBench, code: int) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.spawner.processes[0].lines = ["the last words"]
    bench.spawner.processes[0].end(code)
    status = await bench.reach(EngineState.FAILED)
    assert status.reason == f"it ended with {code}"
    assert status.tail == ("the last words",)
    assert status.next_try_at is not None
    status = await bench.reach(EngineState.READY)
    assert status.restarts == 1
    assert len(bench.spawner.processes) == 2
    assert "kill" in bench.spawner.processes[0].signals


async def test_pauses_grow(bench: KeeperBench) -> None:
    bench.spawner.on_spawn = lambda process: process.end(1)
    bench.probe.healthy = False
    bench.start()
    await until(lambda: len(bench.spawner.processes) == 4)
    failures = [status for status in bench.history if status.state is EngineState.FAILED]
    pauses = [status.next_try_at - status.since for status in failures[:3] if status.next_try_at]
    assert pauses[0] < pauses[1] < pauses[2]


async def test_stopping_while_loading_or_pausing_ends_at_once(bench: KeeperBench) -> None:
    bench.timing = replace(TIMING, first_pause_s=60)
    bench.probe.healthy = False
    bench.start()
    await until(lambda: len(bench.spawner.processes) == 1)
    bench.spawner.processes[0].end(1)
    await bench.reach(EngineState.FAILED)
    bench.keeper.stop()
    await asyncio.wait_for(bench.running, 2)
    assert bench.keeper.status.state is EngineState.STOPPED


async def test_a_cancelled_keeper_leaves_no_process(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    await bench.tasks.close()
    assert bench.spawner.processes[0].signals == ["kill"]


async def test_what_nobody_foresaw_is_a_failure_like_others_and_tried_again(bench: KeeperBench) -> None:
    async def break_down(**_: object) -> None:
        raise AttributeError("no such thing")

    good = bench.probe.warm
    bench.probe.warm = break_down  # type: ignore[assignment]
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert "no such thing" in (status.reason or "")
    bench.probe.warm = good  # type: ignore[method-assign]
    await bench.reach(EngineState.READY)


async def test_exit_code_2_of_an_engine_that_was_ready_is_tried_again(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.spawner.processes[0].end(2)
    await bench.reach(EngineState.FAILED)
    await bench.reach(EngineState.READY)


async def test_files_out_of_reach_at_a_restart_are_looked_at_again(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.admission = Admission("the folder is missing")
    bench.spawner.processes[0].end(1)
    await until(lambda: bench.keeper.status.reason == "the folder is missing")
    bench.admission = Admission()
    await bench.reach(EngineState.READY)


async def test_only_the_life_that_just_ended_counts_as_stable(bench: KeeperBench) -> None:
    bench.timing = replace(TIMING, stable_after_s=0)
    bench.start()
    await bench.reach(EngineState.READY)
    bench.admission = Admission("the folder is missing")
    bench.spawner.processes[0].end(1)
    await until(lambda: bench.keeper.status.restarts == 4)
    failures = [status for status in bench.history if status.state is EngineState.FAILED]
    pauses = [status.next_try_at - status.since for status in failures if status.next_try_at]
    assert pauses[1] < pauses[2] < pauses[3]


async def test_one_that_rests_ends_and_starts_again_when_it_is_woken(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.keeper.rest()
    status = await bench.reach(EngineState.ASLEEP)
    assert (status.pid, status.digests, status.restarts) == (None, {}, 0)
    assert bench.spawner.processes[0].signals == ["term", "kill"]
    bench.keeper.wake()
    await bench.reach(EngineState.READY)
    assert len(bench.spawner.processes) == 2


@pytest.mark.parametrize("ask", ["stop", "retire"])
async def test_one_that_sleeps_can_be_let_go(bench: KeeperBench, ask: str) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.keeper.rest()
    await bench.reach(EngineState.ASLEEP)
    getattr(bench.keeper, ask)()
    await bench.running
    assert bench.keeper.status.state is EngineState.STOPPED


async def test_one_that_dies_while_it_drains_is_no_failure(
    bench: KeeperBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.traffic.running = 1
    bench.keeper.rest()
    await bench.reach(EngineState.DRAINING)
    bench.spawner.processes[0].end(0)
    await bench.reach(EngineState.ASLEEP)
    assert EngineState.FAILED not in bench.states()
    assert "ended before its time: it ended with 0" in caplog.text


async def test_a_retired_engine_is_not_woken(bench: KeeperBench) -> None:
    bench.probe.healthy = False
    bench.start()
    await until(lambda: len(bench.spawner.processes) == 1)
    bench.keeper.retire()
    bench.keeper.wake()
    await bench.running
    assert bench.keeper.status.state is EngineState.STOPPED


async def test_one_that_rests_while_it_pauses_sleeps_at_once(bench: KeeperBench) -> None:
    bench.timing = replace(TIMING, first_pause_s=60)
    bench.probe.fault = "no token"
    bench.start()
    await bench.reach(EngineState.FAILED)
    bench.keeper.rest()
    await bench.reach(EngineState.ASLEEP)


async def test_a_note_is_told_and_stays(bench: KeeperBench) -> None:
    bench.start()
    await bench.reach(EngineState.READY)
    bench.keeper.annotate("it is the last one")
    assert bench.history[-1].note == "it is the last one"
    bench.spawner.processes[0].end(1)
    await until(lambda: bench.keeper.status.restarts == 1)
    assert bench.keeper.status.note == "it is the last one"
