import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.engines.engine import EngineSpec
from gateway.engines.placement import Device, Need
from gateway.engines.room import Idle, NoRoom, Room
from gateway.fleet.replica import VersionKey
from gateway.tasks import TaskSet
from tests.support.fake_engines import engine_spec, until

GIB = 2**30


class Bench:
    def __init__(self, *devices: Device) -> None:
        self.idle: dict[VersionKey, float] = {}
        self.rested: list[VersionKey] = []
        self.notes: list[str] = []
        self.room = Room(devices or (Device("cpu", 10 * GIB),), Idle(lambda: self.idle, self.rested.append))

    async def claim(self, name: str, amount: int, *, may_evict: bool = True, count: int = 1) -> tuple[str, ...]:
        return await self.room.claim(self.spec(name), Need(count, amount), may_evict=may_evict, note=self.notes.append)

    def spec(self, name: str) -> EngineSpec:
        spec = engine_spec(Path("/none"), f"shapes:{name}#0")
        return replace(spec, sleep_after_s=None if name == "fixed" else 60)


async def test_a_place_is_had_until_it_is_released() -> None:
    bench = Bench()
    assert await bench.claim("fixed", 6 * GIB) == ("cpu",)
    with pytest.raises(
        NoRoom, match=r"it needs 5\.0 GiB of memory, and 4\.0 GiB can be had beside the engines that stay"
    ):
        await bench.claim("b", 5 * GIB)
    bench.room.release("shapes:fixed#0")
    bench.room.release("shapes:fixed#0")
    assert await bench.claim("b", 5 * GIB) == ("cpu",)


async def test_who_makes_room_is_waited_for() -> None:
    bench, tasks = Bench(), TaskSet()
    await bench.claim("a", 6 * GIB)
    bench.idle = {("shapes", "a"): 5.0}
    claiming = tasks.start(bench.claim("b", 6 * GIB), "claim")
    await until(lambda: bool(bench.notes))
    assert (bench.rested, bench.notes) == ([("shapes", "a")], ["waiting for shapes:a to make room"])
    assert not claiming.done()
    bench.idle = {}
    bench.room.release("shapes:a#0")
    assert await asyncio.wait_for(claiming, 5) == ("cpu",)


async def test_who_is_busy_is_waited_for_too() -> None:
    bench, tasks = Bench(), TaskSet()
    await bench.claim("a", 6 * GIB)
    claiming = tasks.start(bench.claim("b", 6 * GIB), "claim")
    await until(lambda: bool(bench.notes))
    assert bench.rested == []
    bench.room.release("shapes:a#0")
    await asyncio.wait_for(claiming, 5)


async def test_one_that_may_not_evict_is_refused_at_once() -> None:
    bench = Bench()
    await bench.claim("a", 6 * GIB)
    bench.idle = {("shapes", "a"): 5.0}
    with pytest.raises(NoRoom, match="the room is taken by shapes:a"):
        await bench.claim("b", 6 * GIB, may_evict=False)
    assert bench.rested == []


@pytest.mark.parametrize(
    ("devices", "amount", "count", "said"),
    [
        (
            (Device("cpu", 10 * GIB),),
            11 * GIB,
            1,
            r"it needs 11\.0 GiB of memory, and 10\.0 GiB can be had: free memory",
        ),
        ((Device("0", 1000),), 920, 2, "it needs 2 devices, and there are 1"),
        ((Device("0", 1000),), 1100, 1, "it needs 110 % of memory, and 100 % can be had: lower gpu-memory-utilization"),
    ],
)
async def test_what_never_fits_is_said_for_good(
    devices: tuple[Device, ...], amount: int, count: int, said: str
) -> None:
    with pytest.raises(NoRoom, match=said) as refused:
        await Bench(*devices).claim("a", amount, count=count)
    assert refused.value.is_final
