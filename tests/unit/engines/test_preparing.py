from dataclasses import replace
from pathlib import Path

from gateway.engines.engine import Admission, EngineState
from gateway.engines.placement import Device, Need
from gateway.engines.preparing import build_launch
from tests.support.fake_engines import engine_spec
from tests.support.keeper_bench import KeeperBench


def test_an_engine_is_shown_its_devices_alone_and_settings_have_the_last_word(tmp_path: Path) -> None:
    spec = engine_spec(tmp_path)
    assert build_launch(spec, ("cpu",)).env == {}
    assert build_launch(spec, ("0", "3")).env == {"CUDA_VISIBLE_DEVICES": "0,3"}
    pinned = replace(spec.build_launch(), env={"CUDA_VISIBLE_DEVICES": "7", "A": "b"})
    told = build_launch(replace(spec, build_launch=lambda: pinned), ("0",))
    assert told.env == {"CUDA_VISIBLE_DEVICES": "7", "A": "b"}


async def test_a_place_is_large_enough_for_trials_in_float32(tmp_path: Path) -> None:
    trial = replace(engine_spec(tmp_path), estimate_need=lambda weights_bytes: Need(1, weights_bytes))
    bench = KeeperBench(replace(trial, trials=(trial, trial)))
    bench.devices = (Device("cpu", 1000),)
    bench.admission = Admission(weights_bytes=600)
    bench.start()
    assert "it needs" in ((await bench.reach(EngineState.FAILED)).reason or "")
    assert bench.spawner.processes == []
    await bench.tasks.close()
