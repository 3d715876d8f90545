import asyncio
from pathlib import Path

import pytest

from gateway.control import adapters as module
from gateway.control.adapters import Adapters
from gateway.control.changes import ModelChanges
from gateway.control.serving import Serving
from gateway.engines.engine import MountRefused
from gateway.errors import BadRequest, NoCapacity
from gateway.settings import SourceAddress, parse_address
from gateway.sources import Fetched, SourceFailed, Told
from tests.support.control_bench import make_model
from tests.support.fake_engines import until

KEY = ("m", "v1")


def serving(**mounted: tuple[str | None, int]) -> Serving:
    """What was said of adapters of v1: where each lies, and the how manyeth time."""
    changes = ModelChanges(
        adapters={"v1": {name: place for name, (place, _) in mounted.items()}},
        mounts={f"v1+{name}": number for name, (_, number) in mounted.items()},
    )
    return Serving((make_model(),), {"m": changes})


class Bench:
    """Engines that refuse as often as `refusals` says, and a store of adapters that may fail."""

    def __init__(self, known: Serving | None = None) -> None:
        self.mounted: list[tuple[str, Path | None]] = []
        self.refusals = 0
        self.failure: SourceFailed | None = None
        self.adapters = Adapters(known or serving(), self, self)

    async def set_adapter(self, model: str, version: str, adapter: str, folder: Path | None) -> None:
        await asyncio.sleep(0)
        assert (model, version) == KEY
        if self.refusals:
            self.refusals -= 1
            raise MountRefused("no engine of it is ready")
        self.mounted.append((adapter, folder))

    async def fetch(self, address: SourceAddress, told: Told, *, is_fresh: bool = False) -> Fetched:
        if self.failure is not None:
            raise self.failure
        return Fetched(Path("/fetched", str(is_fresh)), "abc")


async def test_what_is_asked_here_is_done_and_not_done_again_when_it_is_read() -> None:
    bench = Bench()
    assert await bench.adapters.set(KEY, "a", Path("/a")) == Path("/a")
    assert await bench.adapters.set(KEY, "b", parse_address("hf://o/r")) == Path("/fetched/True")
    bench.adapters.follow(serving(a=("/a", 1), b=("hf://o/r", 1)))
    await asyncio.sleep(0.01)
    assert bench.mounted == [("a", Path("/a")), ("b", Path("/fetched/True"))]
    assert await bench.adapters.set(KEY, "a", None) is None
    assert bench.mounted[-1] == ("a", None)


async def test_what_another_gateway_was_asked_is_done_here_until_it_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOUNT_AGAIN_S", 0)
    bench = Bench(serving(old=("/old", 1)))
    bench.refusals = 2
    bench.adapters.follow(serving(old=("/old", 1), a=("/a", 1)))
    await until(lambda: bool(bench.mounted))
    bench.adapters.follow(serving(old=(None, 2), a=("/a", 2)))
    await until(lambda: len(bench.mounted) == 3)
    assert bench.mounted[0] == ("a", Path("/a")), "it was there when engines were started"
    assert sorted(bench.mounted[1:], key=str) == [("a", Path("/a")), ("old", None)]
    await bench.adapters.close()


async def test_what_is_not_wanted_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOUNT_AGAIN_S", 0)
    bench = Bench()
    bench.refusals = 1000
    bench.adapters.follow(serving(a=("/a", 1)))
    await until(lambda: bench.refusals < 1000)
    bench.adapters.follow(serving(a=("/b", 2)))
    bench.refusals = 0
    await until(lambda: bool(bench.mounted))
    await asyncio.sleep(0.01)
    assert bench.mounted == [("a", Path("/b"))]


@pytest.mark.parametrize(("is_final", "kind"), [(True, BadRequest), (False, NoCapacity)])
async def test_what_cannot_be_had_is_refused(is_final: bool, kind: type[Exception]) -> None:
    bench = Bench()
    bench.failure = SourceFailed("nothing there", is_final=is_final)
    with pytest.raises(kind, match=r"m:v1\+a: nothing there"):
        await bench.adapters.set(KEY, "a", parse_address("hf://o/r"))
    bench.refusals = 1
    with pytest.raises(BadRequest, match=r"m:v1\+a: no engine of it is ready"):
        await bench.adapters.set(KEY, "a", Path("/a"))
    assert bench.mounted == []
