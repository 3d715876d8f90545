import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.checkpoints import Drafting
from gateway.engines.engine import Admission, EngineSpec, EngineState, MountRefused, SmokePrompt
from gateway.engines.placement import Need
from gateway.engines.supervisor import Supervisor
from gateway.engines.tools import KeeperTiming, KeeperTools
from gateway.fleet.replica import Replica
from gateway.settings import parse_address
from gateway.tasks import TaskSet
from gateway.telemetry.drafts import DraftCounts
from tests.support.fake_engines import (
    DEVICES,
    FakeProbe,
    FakeSpawner,
    FakeTraffic,
    engine_spec,
    fetch_nothing,
    remakeable,
    remote_spec,
    until,
)

TIMING = KeeperTiming(poll_s=0, quiet_s=0, health_every_s=0, stop_grace_s=0.01, unload_after_s=0, first_pause_s=60)


def name_adapters(spec: EngineSpec) -> dict[str, str]:
    """Digests of adapters, made of their folders' names."""
    return {name: folder.name * 9 for name, folder in spec.adapters}


def supervise(
    spawner: FakeSpawner, probe: FakeProbe, faults: dict[str, str] | None = None, remote: FakeProbe | None = None,
    traffic: FakeTraffic | None = None,
) -> Supervisor:  # fmt: skip
    tools = KeeperTools(
        spawner=spawner,
        fork_spawner=None,
        make_probe=lambda spec: probe,
        fetch=fetch_nothing,
        admit=lambda spec: Admission((faults or {}).get(spec.name), digests=name_adapters(spec)),
        read_digests=name_adapters,
        explain=lambda lines, code: f"it ended with {code}",
        slots=asyncio.Semaphore(1),
        turns=asyncio.Lock(),
        on_change=lambda status: None,
        traffic=traffic or FakeTraffic(),
    )
    return Supervisor(tools, TIMING, DEVICES, lambda spec: remote or FakeProbe())


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


async def test_retired_engines_are_forgotten_when_they_are_gone(tmp_path: Path) -> None:
    supervisor = supervise(FakeSpawner(), FakeProbe(), {"shapes:v2#0": "config.json is missing"})
    names = ("shapes:v1#0", "shapes:v2#0", "shapes:v3#0")
    supervisor.start([*(engine_spec(tmp_path, name) for name in names), remote_spec("shapes:far#0")])
    await until(supervisor.is_settled)
    for version in ("v1", "v2", "far"):
        supervisor.retire("shapes", version)
    await until(lambda: [status.name for status in supervisor.statuses()] == ["shapes:v3#0"])
    await supervisor.close()


async def test_one_of_the_same_name_begins_when_the_last_has_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    traffic, spawner = FakeTraffic(), FakeSpawner()
    supervisor = supervise(spawner, FakeProbe(), traffic=traffic)
    spec = engine_spec(tmp_path, "shapes:v1#0")
    supervisor.start([spec])
    await until(supervisor.is_settled)
    traffic.running = 1
    supervisor.retire("shapes", "v1")
    supervisor.start([spec])
    await until(lambda: states(supervisor) == [EngineState.DRAINING])
    traffic.running = 0
    await until(lambda: len(spawner.processes) == 2 and states(supervisor) == [EngineState.READY])
    supervisor.retire("shapes", "v1")
    supervisor.start([spec])
    supervisor.retire("shapes", "v1")
    await until(lambda: states(supervisor) == [])
    assert len(spawner.processes) == 2, "it was not wanted any more"
    assert "failed" not in caplog.text
    await supervisor.close()


async def test_engines_of_a_version_sleep_and_wake(tmp_path: Path) -> None:
    supervisor = supervise(FakeSpawner(), FakeProbe())
    supervisor.start([engine_spec(tmp_path, "shapes:v1#0"), engine_spec(tmp_path, "shapes:v2#0")])
    await until(supervisor.is_settled)
    supervisor.rest("shapes", "v1")
    await until(lambda: states(supervisor) == [EngineState.ASLEEP, EngineState.READY])
    assert (supervisor.is_settled(), supervisor.ready_names()) == (True, ["shapes:v2"])
    supervisor.wake("shapes", "v1")
    await until(lambda: states(supervisor) == [EngineState.READY, EngineState.READY])
    await supervisor.close()


async def test_versions_that_may_sleep_do_so_when_nobody_asks(tmp_path: Path) -> None:
    traffic = FakeTraffic()
    traffic.running = 1
    supervisor = supervise(FakeSpawner(), FakeProbe(), traffic=traffic)
    supervisor._timing = replace(TIMING, idle_every_s=0)
    sleepy = replace(engine_spec(tmp_path, "shapes:v1#0"), sleep_after_s=0.001)
    supervisor.start([sleepy, engine_spec(tmp_path, "shapes:v2#0")])
    await until(supervisor.is_settled)
    await asyncio.sleep(0.02)
    assert states(supervisor) == [EngineState.READY, EngineState.READY], "a request is under way"
    traffic.running = 0
    await until(lambda: states(supervisor) == [EngineState.ASLEEP, EngineState.READY])
    await supervisor.close()


async def test_what_dozes_can_still_make_room(tmp_path: Path) -> None:
    supervisor = supervise(FakeSpawner(), FakeProbe())
    supervisor._timing = replace(TIMING, idle_every_s=0)
    supervisor.start([replace(engine_spec(tmp_path, "shapes:v1#0"), sleep_after_s=0.001, can_doze=True)])
    await until(lambda: states(supervisor) == [EngineState.ASLEEP])
    [status] = supervisor.statuses()
    assert status.pid is not None
    assert list(supervisor._find_idle()) == [("shapes", "v1")]
    supervisor.rest("shapes", "v1")
    await until(lambda: supervisor.statuses()[0].pid is None)
    assert supervisor._find_idle() == {}
    await supervisor.close()


def sleepy(folder: Path, name: str, amount: int) -> EngineSpec:
    spec = replace(engine_spec(folder, name), sleep_after_s=60, socket=folder / f"{name}.sock")
    return replace(spec, estimate_need=lambda weights_bytes: Need(1, amount))


def _count_ready(supervisor: Supervisor) -> list[int]:
    """How many engines of v1 and of v2 are ready, when none is on its way."""
    if not supervisor.is_settled():
        return []
    ready = supervisor.ready_names()
    return [ready.count("shapes:v1"), ready.count("shapes:v2")]


async def test_engines_of_a_version_that_found_no_room_hold_up_nobody(tmp_path: Path) -> None:
    supervisor = supervise(FakeSpawner(), FakeProbe())
    supervisor.start([sleepy(tmp_path, f"shapes:v1#{number}", 700) for number in range(2)])
    supervisor.start([sleepy(tmp_path, "shapes:v2#0", 700)])
    await until(lambda: states(supervisor) == [EngineState.READY, EngineState.ASLEEP, EngineState.ASLEEP])
    for version, at_work in (("v2", [0, 1]), ("v1", [1, 0]), ("v2", [0, 1])):
        supervisor.wake("shapes", version)
        await until(lambda: _count_ready(supervisor) == at_work)  # noqa: B023
    await supervisor.close()


async def test_the_place_of_one_that_is_leaving_is_waited_for(tmp_path: Path) -> None:
    traffic = FakeTraffic()
    supervisor = supervise(FakeSpawner(), FakeProbe(), traffic=traffic)
    fixed = [replace(sleepy(tmp_path, f"shapes:v{number}#0", 700), sleep_after_s=None) for number in (1, 2)]
    supervisor.start(fixed[:1])
    await until(supervisor.is_settled)
    traffic.running = 1
    supervisor.retire("shapes", "v1")
    supervisor.start(fixed[1:])
    await until(lambda: supervisor.statuses()[1].phase == "waiting for shapes:v1 to make room")
    traffic.running = 0
    await until(
        lambda: [status.name for status in supervisor.statuses()] == ["shapes:v2#0"] and supervisor.is_settled()
    )
    assert states(supervisor) == [EngineState.READY]
    await supervisor.close()


async def test_one_that_was_just_asked_for_is_not_taken_for_idle(tmp_path: Path) -> None:
    supervisor = supervise(FakeSpawner(), FakeProbe())
    supervisor._timing = replace(TIMING, idle_every_s=0)
    supervisor.start([replace(sleepy(tmp_path, "shapes:v1#0", 700), can_doze=True, sleep_after_s=0.001)])
    await until(lambda: states(supervisor) == [EngineState.ASLEEP])
    supervisor.wake("shapes", "v1")
    assert supervisor._find_idle() == {}
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
        async def load_adapter(self, name: str, folder: Path, smoke: tuple[SmokePrompt, ...] = ()) -> None:
            self.mount_fault = "the engine does not mount it" if self.mounted else None
            await super().load_adapter(name, folder, smoke)

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


async def test_without_a_ready_engine_nothing_is_mounted(tmp_path: Path) -> None:
    probe = FakeProbe()
    probe.healthy = False
    supervisor = supervise(FakeSpawner(), probe)
    supervisor.start([remakeable(engine_spec(tmp_path))])
    await until(lambda: probe.looks > 3)
    with pytest.raises(MountRefused, match="no engine of the version is ready"):
        await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    assert probe.mounted == []
    await supervisor.close()


async def test_while_a_version_is_fetched_it_says_so(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = supervise(FakeSpawner(), probe)
    here = remakeable(engine_spec(tmp_path))
    supervisor.start(
        [replace(here, remake=None, sources=(parse_address("hf://org/name"),), settle=lambda folders: here)]
    )
    with pytest.raises(MountRefused, match="shapes:v1 is still being fetched: ask again when it is there"):
        await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    assert probe.mounted == []
    await supervisor.close()


class Apart:
    """Two engines of one version, each with a probe of its own."""

    def __init__(self, tmp_path: Path) -> None:
        self.probes = {f"shapes:v1#{number}": FakeProbe() for number in range(2)}
        self.told: list[list[tuple[str, ...]]] = []
        self.spawner = FakeSpawner()
        tools = KeeperTools(
            spawner=self.spawner,
            fork_spawner=None,
            make_probe=lambda spec: self.probes[spec.name],
            fetch=fetch_nothing,
            admit=lambda spec: Admission(digests=name_adapters(spec)),
            read_digests=name_adapters,
            explain=lambda lines, code: "",
            slots=asyncio.Semaphore(2),
            turns=asyncio.Lock(),
            traffic=FakeTraffic(),
            on_change=lambda status: self.told.append([one.adapters for one in self.supervisor.statuses()]),
        )
        timing = replace(TIMING, first_pause_s=0, unload_after_s=60)
        self.supervisor = Supervisor(tools, timing, DEVICES, lambda spec: FakeProbe())
        self.first, self.second = self.probes.values()
        self.specs = [remakeable(engine_spec(tmp_path, name)) for name in self.probes]


async def test_one_that_becomes_ready_while_another_loads_has_it_too(tmp_path: Path) -> None:
    bench = Apart(tmp_path)
    bench.first.healthy = False
    gate = asyncio.Event()
    real = bench.second.load_adapter

    async def load(name: str, folder: Path, smoke: tuple[SmokePrompt, ...] = ()) -> None:
        await gate.wait()
        await real(name, folder, smoke)

    bench.second.load_adapter = load  # type: ignore[method-assign]
    bench.supervisor.start(bench.specs)
    await until(lambda: states(bench.supervisor)[1] is EngineState.READY)
    tasks = TaskSet()
    mounting = tasks.start(bench.supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one"), "mount")
    bench.first.healthy = True
    await until(bench.supervisor.is_settled)
    gate.set()
    await mounting
    assert bench.first.mounted == bench.second.mounted == [("load", ID)]
    assert [status.adapters for status in bench.supervisor.statuses()] == [(ID,), (ID,)]
    await bench.supervisor.close()


async def test_one_on_its_way_up_has_it_when_it_is_ready(tmp_path: Path) -> None:
    bench = Apart(tmp_path)
    bench.first.healthy = False
    bench.supervisor.start(bench.specs)
    await until(lambda: states(bench.supervisor)[1] is EngineState.READY)
    await bench.supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    assert bench.first.mounted == []
    bench.first.healthy = True
    await until(bench.supervisor.is_settled)
    assert bench.first.mounted == [("load", ID)]
    await bench.supervisor.close()


async def test_one_that_does_not_take_it_when_it_comes_up_goes_without(tmp_path: Path) -> None:
    bench = Apart(tmp_path)
    bench.first.healthy, bench.first.mount_fault = False, "no memory"
    bench.supervisor.start(bench.specs)
    await until(lambda: states(bench.supervisor)[1] is EngineState.READY)
    await bench.supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    bench.first.healthy = True
    await until(bench.supervisor.is_settled)
    assert [status.adapters for status in bench.supervisor.statuses()] == [(), (ID,)]
    await bench.supervisor.close()


async def test_all_engines_change_names_before_anybody_is_told(tmp_path: Path) -> None:
    bench = Apart(tmp_path)
    bench.supervisor.start(bench.specs)
    await until(bench.supervisor.is_settled)
    await bench.supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    bench.told.clear()
    await bench.supervisor.set_adapter("shapes", "v1", "a", tmp_path / "two")
    assert bench.told
    assert all(one == other for one, other in bench.told)
    await bench.supervisor.close()


async def test_the_old_one_can_come_back_at_once(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = await mounting(tmp_path, probe, 1)
    supervisor._timing = replace(TIMING, unload_after_s=60)
    for name in ("one", "two", "one"):
        await supervisor.set_adapter("shapes", "v1", "a", tmp_path / name)
    assert [kind for kind, _ in probe.mounted] == ["load", "load"], "it was still mounted"
    assert supervisor.statuses()[0].adapters == (ID,)
    await supervisor.set_adapter("shapes", "v1", "a", None)
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    assert len(probe.mounted) == 2
    await supervisor.close()


async def test_what_is_asked_for_again_is_not_unloaded_by_an_old_order(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = await mounting(tmp_path, probe, 1)
    supervisor._timing = replace(TIMING, unload_after_s=0.02)
    for name in ("one", "two", "one"):
        await supervisor.set_adapter("shapes", "v1", "a", tmp_path / name)
    await until(lambda: ("unload", f"{ID}@twotwotwotwo") in probe.mounted)
    assert ("unload", ID) not in probe.mounted
    await supervisor.close()


async def test_files_that_change_while_they_are_loaded_are_refused(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = await mounting(tmp_path, probe, 1)
    supervisor._tools = replace(supervisor._tools, read_digests=lambda spec: {spec.adapters[0][0]: "another"})
    with pytest.raises(MountRefused, match="files changed"):
        await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    assert probe.mounted == [("load", ID), ("unload", ID)]
    await supervisor.close()


async def test_engines_that_take_for_ever_are_not_waited_for(tmp_path: Path) -> None:
    class Silent(FakeProbe):
        async def load_adapter(self, name: str, folder: Path, smoke: tuple[SmokePrompt, ...] = ()) -> None:
            await asyncio.Event().wait()

    supervisor = await mounting(tmp_path, Silent(), 1)
    supervisor._timing = replace(TIMING, mount_timeout_s=0.01)
    with pytest.raises(MountRefused, match=r"did not do it within 0\.01 s"):
        await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    assert supervisor.statuses()[0].adapters == ()
    await supervisor.close()


async def test_an_adapter_s_smoke_prompts_are_asked_of_each_that_takes_its_name(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = supervise(FakeSpawner(), probe)
    prompts = (SmokePrompt("what?", "x", "shapes"), SmokePrompt("left?", "right", ID))
    spec = remakeable(replace(engine_spec(tmp_path), adapters=((ID, tmp_path / "old"),), smoke=prompts))
    supervisor.start([spec])
    await until(supervisor.is_settled)
    assert probe.smoke == prompts
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "new")
    assert probe.mount_smoke == (SmokePrompt("left?", "right", f"{ID}@newnewnewnew"),)
    await supervisor.close()


async def test_a_run_s_checkpoint_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoint-7").mkdir(parents=True)
    probe = FakeProbe()
    supervisor = await mounting(tmp_path, probe, 1)
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "run@newest")
    assert supervisor._find_keepers("shapes", "v1")[0].spec.adapters == ((ID, tmp_path / "run" / "checkpoint-7"),)
    with pytest.raises(MountRefused, match="says which of its checkpoints is the best"):
        await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "run@best")
    await supervisor.close()


async def test_an_adapter_that_is_still_to_be_unloaded_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = FakeProbe()
    supervisor = await mounting(tmp_path, probe, 1)
    monkeypatch.setattr(supervisor, "_timing", replace(TIMING, unload_after_s=60))
    await supervisor.set_adapter("shapes", "v1", "a", tmp_path / "one")
    await supervisor.set_adapter("shapes", "v1", "a", None)
    async with asyncio.timeout(2):
        await supervisor.close()


def guessing(folder: Path) -> EngineSpec:
    """One that guesses ahead, and the same one that does not."""
    plain = replace(remakeable(engine_spec(folder, "shapes:v1#1")), index=1)
    return replace(engine_spec(folder), drafting=Drafting("ngram"), min_acceptance=0.4, plain=plain)


async def test_one_without_room_beside_it_stays_though_it_guesses_wrongly(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = supervise(FakeSpawner(), probe)

    def takes_most(spec: EngineSpec) -> EngineSpec:
        return replace(spec, sleep_after_s=60, estimate_need=lambda weights_bytes: Need(1, 700))

    spec = guessing(tmp_path)
    assert spec.plain is not None
    supervisor.start([takes_most(replace(spec, plain=takes_most(spec.plain)))])
    await until(supervisor.is_settled)
    probe.drafts = DraftCounts(4000, 16000, 100)
    await until(lambda: "it stays, as shapes:v1#1 failed beside it" in (supervisor.statuses()[0].note or ""))
    await until(lambda: states(supervisor) == [EngineState.READY])
    await supervisor.close()


async def test_speculation_that_is_mostly_wrong_is_switched_off(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = supervise(FakeSpawner(), probe)
    supervisor.start([guessing(tmp_path)])
    await until(lambda: states(supervisor) == [EngineState.READY])
    probe.drafts = DraftCounts(2500, 10_000, 5000)
    await until(lambda: supervisor.statuses()[0].drafts == probe.drafts)
    assert len(supervisor.statuses()) == 1, "half of it right is good enough"
    probe.drafts = DraftCounts(5000, 20_000, 5000)
    await until(lambda: len(supervisor.statuses()) == 2)
    await until(lambda: len(supervisor.statuses()) == 1)
    [status] = supervisor.statuses()
    assert (status.name, status.state) == ("shapes:v1#1", EngineState.READY)
    assert status.drafts == DraftCounts(5000, 20_000, 5000), "counted on from the one before"
    assert (status.note or "").startswith("speculation is switched off: 0.0% of the last 10,000 guessed tokens were")
    assert [replica.name for replica in supervisor.replicas()] == ["v1-1"]
    await supervisor.close()


async def test_without_an_engine_beside_it_speculation_stays(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = supervise(FakeSpawner(), probe, {"shapes:v1#1": "no room"})
    supervisor.start([guessing(tmp_path)])
    probe.drafts = DraftCounts(5000, 20_000, 100)
    await until(lambda: len(supervisor.statuses()) == 2)
    await until(lambda: len(supervisor.statuses()) == 1)
    [status] = supervisor.statuses()
    assert (status.name, status.state) == ("shapes:v1#0", EngineState.READY)
    assert (status.note or "").startswith(
        "it stays, as shapes:v1#1 failed beside it (no room), though 0.5% of the last"
    )
    await supervisor.close()


async def test_a_version_that_is_retired_while_it_is_replaced_is_gone(tmp_path: Path) -> None:
    probe = FakeProbe()
    supervisor = supervise(FakeSpawner(), probe)
    supervisor.start([guessing(tmp_path)])
    await until(lambda: states(supervisor) == [EngineState.READY])
    probe.drafts = DraftCounts(5000, 20_000, 100)
    await until(lambda: len(supervisor.statuses()) == 2)
    supervisor.retire("shapes", "v1")
    await until(lambda: supervisor.statuses() == [])
    await supervisor.close()


async def test_an_engine_that_is_to_go_is_not_replaced(tmp_path: Path) -> None:
    spawner, probe = FakeSpawner(), FakeProbe()
    supervisor = supervise(spawner, probe)
    supervisor.start([guessing(tmp_path)])
    await until(lambda: states(supervisor) == [EngineState.READY])
    async with supervisor._mounting.setdefault(("shapes", "v1"), asyncio.Lock()):
        probe.drafts = DraftCounts(5000, 20_000, 100)
        await until(lambda: supervisor.statuses()[0].drafts == probe.drafts)
        supervisor.retire("shapes", "v1")
    await until(lambda: supervisor.statuses() == [])
    assert len(spawner.processes) == 1
    await supervisor.close()


def numbered(folder: Path, count: int) -> list[EngineSpec]:
    return [replace(engine_spec(folder, f"shapes:v1#{n}"), socket=folder / f"{n}.sock") for n in range(count)]


async def test_engines_of_a_version_come_and_go_and_the_others_go_on(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    supervisor = supervise(spawner, FakeProbe())
    supervisor.start(numbered(tmp_path, 1))
    await until(lambda: states(supervisor) == [EngineState.READY])
    supervisor.scale("shapes", "v1", numbered(tmp_path, 3))
    await until(lambda: states(supervisor) == [EngineState.READY] * 3)
    assert len(spawner.processes) == 3
    supervisor.scale("shapes", "v1", numbered(tmp_path, 2))
    await until(lambda: [status.name for status in supervisor.statuses()] == ["shapes:v1#0", "shapes:v1#1"])
    assert len(spawner.processes) == 3, "those that stay were not touched"
    await supervisor.close()


async def test_one_that_is_wanted_again_while_it_leaves_comes_back(tmp_path: Path) -> None:
    spawner, traffic = FakeSpawner(), FakeTraffic()
    supervisor = supervise(spawner, FakeProbe(), traffic=traffic)
    supervisor.start(numbered(tmp_path, 2))
    await until(lambda: states(supervisor) == [EngineState.READY] * 2)
    supervisor.scale("shapes", "v1", numbered(tmp_path, 1))
    supervisor.scale("shapes", "v1", numbered(tmp_path, 2))
    await until(lambda: len(spawner.processes) == 3 and states(supervisor) == [EngineState.READY] * 2)
    await supervisor.close()


async def test_an_address_elsewhere_that_changes_is_another_engine(tmp_path: Path) -> None:
    supervisor = supervise(FakeSpawner(), FakeProbe())
    supervisor.start([remote_spec("shapes:far#0", "http://a:1"), remote_spec("shapes:far#1", "http://b:1")])
    await until(lambda: len(supervisor.replicas()) == 2)
    supervisor.scale(
        "shapes", "far", [remote_spec("shapes:far#0", "http://a:1"), remote_spec("shapes:far#1", "http://c:1")]
    )
    await until(lambda: {one.address for one in supervisor.replicas()} == {"http://a:1", "http://c:1"})
    await supervisor.close()
