"""A keeper of an engine among fakes, whose every answer the test decides."""

import asyncio
from collections.abc import Callable
from functools import cached_property

from gateway.engines.engine import Admission, EngineSpec, EngineState, EngineStatus
from gateway.engines.keeper import EngineKeeper
from gateway.engines.room import Idle, Room
from gateway.engines.settling import Fetch
from gateway.engines.tools import KeeperTiming, KeeperTools
from gateway.fleet.replica import VersionKey
from gateway.tasks import TaskSet
from tests.support.fake_engines import DEVICES, FakeProbe, FakeSpawner, FakeTraffic, fetch_nothing, until

TIMING = KeeperTiming(
    start_timeout_s=5,
    poll_s=0,
    quiet_s=0,
    health_every_s=0,
    failed_checks=3,
    stop_grace_s=0.01,
    last_words_s=0.01,
    first_pause_s=0.001,
)


class KeeperBench:
    """A keeper among fakes."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spawner = FakeSpawner()
        self.fork_spawner: FakeSpawner | None = None
        self.probe = FakeProbe()
        self.admission = Admission()
        self.admit: Callable[[EngineSpec], Admission] = lambda spec: self.admission
        self.fetch: Fetch = fetch_nothing
        self.history: list[EngineStatus] = []
        self.spec = spec
        self.timing = TIMING
        self.traffic = FakeTraffic()
        self.slots = asyncio.Semaphore(1)
        self.idle: dict[VersionKey, float] = {}
        self.rested: list[VersionKey] = []
        self.devices = DEVICES
        self.tasks = TaskSet()

    @cached_property
    def room(self) -> Room:
        return Room(self.devices, Idle(lambda: self.idle, self.rested.append))

    def start(self) -> EngineKeeper:
        tools = KeeperTools(
            spawner=self.spawner,
            fork_spawner=self.fork_spawner,
            make_probe=lambda spec: self.probe,
            fetch=self.fetch,
            admit=lambda spec: self.admit(spec),
            read_digests=lambda spec: self.admit(spec).digests,
            explain=lambda lines, code: f"it ended with {code}",
            slots=self.slots,
            turns=asyncio.Lock(),
            on_change=self.history.append,
            traffic=self.traffic,
        )
        self.keeper = EngineKeeper(self.spec, tools, self.timing, self.room)
        self.running = self.tasks.start(self.keeper.run(), "keeper")
        return self.keeper

    async def reach(self, state: EngineState) -> EngineStatus:
        await until(lambda: self.keeper.status.state is state)
        return self.keeper.status

    def states(self) -> list[EngineState]:
        told = [status.state for status in self.history]
        return [state for index, state in enumerate(told) if index == 0 or told[index - 1] is not state]
