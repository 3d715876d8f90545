from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.engine import EngineSpec, ProbeFailed, SmokePrompt
from gateway.engines.mounts import Mounts, find_smoke
from tests.support.fake_engines import FakeProbe, engine_spec, remakeable

A, B = "shapes:v1+a", "shapes:v1+b"


class Bench:
    def __init__(self, tmp_path: Path, *names: str) -> None:
        self.folder = tmp_path
        self.probe = FakeProbe()
        self.spec = self.having(*names)
        self.mounts = Mounts(self.spec, lambda spec: self.probe)
        self.mounts.begin(self.spec, {"": "base", A: "one"})

    def having(self, *names: str) -> EngineSpec:
        spec = remakeable(engine_spec(self.folder))
        return replace(spec, adapters=tuple((name, self.folder) for name in names))


async def test_what_an_engine_was_launched_with_it_has(tmp_path: Path) -> None:
    bench = Bench(tmp_path, A)
    assert (bench.mounts.has(A), bench.mounts.has(B), bench.mounts.find_missing()) == (True, False, None)
    await bench.mounts.mount(A, tmp_path)
    assert bench.probe.mounted == []
    bench.mounts.end()
    assert not bench.mounts.has(A)


async def test_what_is_asked_for_is_missing_until_it_is_mounted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, A)
    bench.mounts.hold(bench.having(A, B), {B: "two"})
    assert bench.mounts.find_missing() == (B, tmp_path)
    assert bench.mounts.describe(is_up=True)["adapters"] == (A,)
    assert bench.mounts.describe(is_up=False)["adapters"] == (A, B)
    await bench.mounts.mount(B, tmp_path)
    assert (bench.mounts.find_missing(), bench.probe.mounted) == (None, [("load", B)])
    assert bench.mounts.describe(is_up=True)["digests"] == {"": "base", A: "one", B: "two"}
    assert bench.mounts.describe(is_up=False)["digests"] == {}
    assert bench.probe.is_closed


async def test_what_the_engine_does_not_take_is_not_mounted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.probe.mount_fault = "no memory"
    with pytest.raises(ProbeFailed, match="no memory"):
        await bench.mounts.mount(A, tmp_path)
    assert not bench.mounts.has(A)
    assert bench.probe.is_closed


async def test_what_is_taken_off_is_so_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, A)
    await bench.mounts.unmount(A)
    await bench.mounts.unmount(A)
    assert bench.probe.mounted == [("unload", A)]


@pytest.mark.parametrize("can_remake", [True, False])
def test_one_can_be_done_without(tmp_path: Path, can_remake: bool) -> None:
    bench = Bench(tmp_path, A, B)
    if not can_remake:
        bench.mounts.hold(replace(bench.spec, remake=None), {})
    bench.mounts.drop(A)
    assert bench.mounts.spec.adapters == ((B, tmp_path),)


async def test_smoke_prompts_go_by_the_names_of_now(tmp_path: Path) -> None:
    names = ("shapes", A, "shapes:v1+gone")
    spec = replace(
        engine_spec(tmp_path),
        smoke=tuple(SmokePrompt("?", "x", name) for name in names),
        adapters=((f"{A}@12", tmp_path),),
    )
    assert [prompt.name for prompt in find_smoke(spec)] == ["shapes", f"{A}@12"]
    probe = FakeProbe()
    await Mounts(spec, lambda _: probe).mount(f"{A}@34", tmp_path)
    assert probe.mount_smoke == (SmokePrompt("?", "x", f"{A}@34"),)
