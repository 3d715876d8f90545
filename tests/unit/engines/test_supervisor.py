import asyncio
from pathlib import Path

from gateway.engines.engine import Admission, EngineState
from gateway.engines.keeper import KeeperTiming, KeeperTools
from gateway.engines.supervisor import Supervisor
from tests.support.fake_engines import FakeProbe, FakeSpawner, engine_spec, until

TIMING = KeeperTiming(poll_s=0, stop_grace_s=0.01, first_pause_s=60)


def supervise(spawner: FakeSpawner, probe: FakeProbe, faults: dict[str, str] | None = None) -> Supervisor:
    tools = KeeperTools(
        spawner=spawner,
        fork_spawner=None,
        make_probe=lambda spec: probe,
        admit=lambda spec: Admission((faults or {}).get(spec.name)),
        explain=lambda lines, code: f"it ended with {code}",
        slots=asyncio.Semaphore(1),
        turns=asyncio.Lock(),
        on_change=lambda status: None,
    )
    return Supervisor(tools, TIMING)


def states(supervisor: Supervisor) -> list[EngineState]:
    return [status.state for status in supervisor.statuses()]


async def test_one_that_cannot_start_does_not_take_the_others_down(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    supervisor = supervise(spawner, FakeProbe(), {"shapes:v1#0": "config.json is missing"})
    specs = [engine_spec(tmp_path, "shapes:v1#0"), engine_spec(tmp_path, "shapes:v2#0")]
    supervisor.start(specs)
    await until(lambda: states(supervisor) == [EngineState.FAILED, EngineState.READY])
    assert supervisor.ready_specs() == [specs[1]]
    await supervisor.close()


async def test_engines_load_one_after_the_other(tmp_path: Path) -> None:
    spawner, probe = FakeSpawner(), FakeProbe()
    probe.healthy = False
    supervisor = supervise(spawner, probe)
    supervisor.start([engine_spec(tmp_path, "shapes:v1#0"), engine_spec(tmp_path, "shapes:v2#0")])
    await until(lambda: len(spawner.processes) == 1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(spawner.processes) == 1
    probe.healthy = True
    await until(lambda: states(supervisor) == [EngineState.READY, EngineState.READY])
    await supervisor.close()


async def test_close_leaves_nothing_running(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    spawner.on_spawn = lambda process: setattr(process, "is_stubborn", True)
    supervisor = supervise(spawner, FakeProbe())
    supervisor.start([engine_spec(tmp_path, "shapes:v1#0"), engine_spec(tmp_path, "shapes:v2#0")])
    await until(lambda: states(supervisor) == [EngineState.READY, EngineState.READY])
    await supervisor.close()
    assert states(supervisor) == [EngineState.STOPPED, EngineState.STOPPED]
    assert [process.signals for process in spawner.processes] == [["term", "kill"]] * 2
    assert spawner.is_closed
