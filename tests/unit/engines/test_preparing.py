from dataclasses import replace
from pathlib import Path

from gateway.engines.engine import Admission, EngineState
from gateway.engines.placement import Device, Need
from gateway.engines.preparing import show_devices
from gateway.engines.process import LaunchSpec
from tests.support.fake_engines import engine_spec
from tests.support.keeper_bench import KeeperBench


def test_an_engine_is_shown_its_devices_alone_and_settings_have_the_last_word(tmp_path: Path) -> None:
    launch = engine_spec(tmp_path).build_launch()
    assert show_devices(launch, ("cpu",)).env == {}
    assert show_devices(launch, ("0", "3")).env == {"CUDA_VISIBLE_DEVICES": "0,3"}
    pinned = replace(launch, env={"CUDA_VISIBLE_DEVICES": "7", "A": "b"})
    assert show_devices(pinned, ("0",)).env == {"CUDA_VISIBLE_DEVICES": "7", "A": "b"}


async def test_what_cannot_be_launched_says_so_though_there_is_no_room(tmp_path: Path) -> None:
    def refuse() -> LaunchSpec:
        raise ValueError("reasoning: there is no such parser")

    spec = replace(engine_spec(tmp_path), estimate_need=lambda weights_bytes: Need(1, 2000), build_launch=refuse)
    bench = KeeperBench(spec)
    bench.devices = (Device("cpu", 1000),)
    bench.start()
    status = await bench.reach(EngineState.FAILED)
    assert (status.reason, status.next_try_at) == ("reasoning: there is no such parser", None)


async def test_a_place_is_large_enough_for_trials_in_float32(tmp_path: Path) -> None:
    trial = replace(engine_spec(tmp_path), estimate_need=lambda weights_bytes: Need(1, weights_bytes))
    bench = KeeperBench(replace(trial, trials=(trial, trial)))
    bench.devices = (Device("cpu", 1000),)
    bench.admission = Admission(weights_bytes=600)
    bench.start()
    assert "it needs" in ((await bench.reach(EngineState.FAILED)).reason or "")
    assert bench.spawner.processes == []
    await bench.tasks.close()
