import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.engine import Admission, EngineState, MountRefused
from gateway.engines.keeper import KeeperTiming, KeeperTools
from gateway.engines.supervisor import Supervisor
from gateway.fleet.replica import Replica
from tests.support.fake_engines import FakeProbe, FakeSpawner, engine_spec, remakeable, remote_spec, until

TIMING = KeeperTiming(poll_s=0, stop_grace_s=0.01, unload_after_s=0, first_pause_s=60)


def supervise(
    spawner: FakeSpawner, probe: FakeProbe, faults: dict[str, str] | None = None, remote: FakeProbe | None = None
) -> Supervisor:
    tools = KeeperTools(
        spawner=spawner,
        fork_spawner=None,
        make_probe=lambda spec: probe,
        admit=lambda spec: Admission(
            (faults or {}).get(spec.name), digests={name: folder.name * 9 for name, folder in spec.adapters}
        ),
        explain=lambda lines, code: f"it ended with {code}",
        slots=asyncio.Semaphore(1),
        turns=asyncio.Lock(),
        on_change=lambda status: None,
    )
    return Supervisor(tools, TIMING, lambda spec: remote or FakeProbe())


def states(supervisor: Supervisor) -> list[EngineState]:
    return [status.state for status in supervisor.statuses()]


async def test_one_that_cannot_start_does_not_take_the_others_down(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    supervisor = supervise(spawner, FakeProbe(), {"shapes:v1#0": "config.json is missing"})
    specs = [engine_spec(tmp_path, "shapes:v1#0"), engine_spec(tmp_path, "shapes:v2#0")]
    supervisor.start(specs)
    await until(lambda: states(supervisor) == [EngineState.FAILED, EngineState.READY])
    assert supervisor.replicas() == [Replica("v2-0", "shapes", "v2", specs[1].address, "shapes")]
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


async def test_engines_elsewhere_are_watched_and_nothing_is_started_for_them(tmp_path: Path) -> None:
    spawner, remote = FakeSpawner(), FakeProbe()
    remote.name = "org/shapes-7b"
    supervisor = supervise(spawner, FakeProbe(), remote=remote)
    supervisor.start([remote_spec("shapes:far#0", "http://a:1"), remote_spec("shapes:far#1", "http://b:1")])
    assert supervisor.replicas() == []
    await until(lambda: states(supervisor) == [EngineState.READY, EngineState.READY])
    assert supervisor.replicas() == [
        Replica("far-0", "shapes", "far", "http://a:1", "org/shapes-7b"),
        Replica("far-1", "shapes", "far", "http://b:1", "org/shapes-7b"),
    ]
    assert spawner.specs == []
    await supervisor.close()
    assert states(supervisor) == [EngineState.STOPPED, EngineState.STOPPED]
    assert supervisor.replicas() == []
    assert remote.is_closed


async def test_one_elsewhere_that_is_silent_holds_up_nobody(tmp_path: Path) -> None:
    remote = FakeProbe()
    remote.healthy = False
    supervisor = supervise(FakeSpawner(), FakeProbe(), remote=remote)
    supervisor.start([remote_spec("shapes:far#0"), engine_spec(tmp_path, "shapes:v1#0")])
    await until(lambda: states(supervisor) == [EngineState.FAILED, EngineState.READY])
    assert [replica.name for replica in supervisor.replicas()] == ["v1-0"]
    await supervisor.close()


async def test_it_tells_who_is_ready_and_when_nobody_is_on_the_way_up(tmp_path: Path) -> None:
    spawner, probe = FakeSpawner(), FakeProbe()
    probe.healthy = False
    supervisor = supervise(spawner, probe, {"shapes:v1#0": "config.json is missing"})
    supervisor.start([engine_spec(tmp_path, "shapes:v1#0"), engine_spec(tmp_path, "shapes:v2#0")])
    await until(lambda: EngineState.FAILED in states(supervisor))
    assert (supervisor.is_settled(), supervisor.ready_names()) == (False, [])
    probe.healthy = True
    await until(supervisor.is_settled)
    assert supervisor.ready_names() == ["shapes:v2"]
    await supervisor.close()


ID = "shapes:v1+a"


async def mounting(tmp_path: Path, probe: FakeProbe, count: int = 2) -> Supervisor:
    """Engines of one version, ready, that take adapters."""
    supervisor = supervise(FakeSpawner(), probe)
    supervisor.start([remakeable(engine_spec(tmp_path, f"shapes:v1#{number}")) for number in range(count)])
    await until(supervisor.is_settled)
    return supervisor


async def test_an_adapter_is_mounted_on_every_engine_and_then_known(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = await mounting(tmp_path, probe)
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    assert probe.mounted == [("load", ID)] * 2
    for status in supervisor.statuses():
        assert (status.adapters, status.digests[ID]) == ((ID,), "one" * 9)
    await supervisor.close()


async def test_other_weights_get_another_name_so_that_no_cache_mistakes_them(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = await mounting(tmp_path, probe, 1)
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "two")
    await until(lambda: len(probe.mounted) == 3)
    assert probe.mounted == [("load", ID), ("load", f"{ID}@twotwotwotwo"), ("unload", ID)]
    [status] = supervisor.statuses()
    assert (status.adapters, set(status.digests)) == ((f"{ID}@twotwotwotwo",), {f"{ID}@twotwotwotwo"})
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "two")
    assert len(probe.mounted) == 3, "it is mounted already"
    await supervisor.close()


async def test_an_adapter_of_the_settings_can_be_replaced(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = supervise(FakeSpawner(), probe)
    configured = remakeable(engine_spec(tmp_path, "shapes:v1#0"))
    supervisor.start([replace(configured, adapters=((ID, tmp_path / "old"),))])
    await until(supervisor.is_settled)
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "new")
    await until(lambda: len(probe.mounted) == 2)
    assert probe.mounted == [("load", f"{ID}@newnewnewnew"), ("unload", ID)]
    await supervisor.close()


async def test_one_that_is_taken_away_is_unknown_at_once_and_unloaded_later(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = await mounting(tmp_path, probe, 1)
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    await supervisor.set_adapter("shapes", "v1", "a", None)
    assert supervisor.statuses()[0].adapters == ()
    await until(lambda: ("unload", ID) in probe.mounted)
    with pytest.raises(MountRefused, match=r"shapes:v1\+a is not mounted"):
        await supervisor.set_adapter("shapes", "v1", "a", None)
    await supervisor.close()


async def test_one_that_an_engine_does_not_take_is_taken_off_the_others(tmp_path: Path) -> None:
    class Second(FakeProbe):
        async def load_adapter(self, name: str, folder: Path) -> None:
            self.mount_fault = "the engine does not mount it" if self.mounted else None
            await super().load_adapter(name, folder)

    probe = Second()
    supervisor = await mounting(tmp_path, probe)
    with pytest.raises(MountRefused, match="the engine does not mount it"):
        await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    assert probe.mounted == [("load", ID), ("unload", ID)]
    assert [status.adapters for status in supervisor.statuses()] == [(), ()]
    await supervisor.close()


async def test_one_that_is_not_admitted_reaches_no_engine(tmp_path: Path) -> None:
    faults: dict[str, str] = {}
    probe = FakeProbe()
    supervisor = supervise(FakeSpawner(), probe, faults)
    supervisor.start([remakeable(engine_spec(tmp_path))])
    await until(supervisor.is_settled)
    faults["shapes:v1#0"] = "the adapter is damaged"
    with pytest.raises(MountRefused, match="the adapter is damaged"):
        await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    assert probe.mounted == []
    await supervisor.close()


async def test_an_engine_on_its_way_up_has_it_when_it_is_ready(tmp_path: Path) -> None:
    probe = FakeProbe()
    probe.healthy = False
    supervisor = supervise(FakeSpawner(), probe)
    supervisor.start([remakeable(engine_spec(tmp_path))])
    await until(lambda: probe.looks > 3)
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    assert probe.mounted == []
    probe.healthy = True
    await until(supervisor.is_settled)
    assert probe.mounted == [("load", ID)]
    assert supervisor.statuses()[0].adapters == (ID,)
    await supervisor.close()
