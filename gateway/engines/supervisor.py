"""All engines of a gateway: a keeper for each that runs here, a watch over each that runs elsewhere.

Never decides what should run; control does.
"""

import asyncio
from collections.abc import Callable, Iterable

from gateway.engines.engine import EngineSpec, EngineState, EngineStatus
from gateway.engines.keeper import EngineKeeper, KeeperTiming, KeeperTools
from gateway.engines.remote import RemoteProbe, RemoteSpec, RemoteTiming, RemoteWatch
from gateway.fleet.replica import Replica
from gateway.tasks import TaskSet


class Supervisor:
    """Runs keepers and watches and closes what they share. One task per engine."""

    def __init__(
        self, tools: KeeperTools, timing: KeeperTiming, make_remote_probe: Callable[[RemoteSpec], RemoteProbe]
    ) -> None:
        self._tools = tools
        self._timing = timing
        self._make_remote_probe = make_remote_probe
        self._keepers: dict[str, EngineKeeper | RemoteWatch] = {}
        self._tasks = TaskSet()

    def start(self, specs: Iterable[EngineSpec | RemoteSpec]) -> None:
        """Begin keeping the engines given; returns at once."""
        for spec in specs:
            keeper: EngineKeeper | RemoteWatch
            if isinstance(spec, RemoteSpec):
                keeper = RemoteWatch(spec, self._make_remote_probe, self._tools.on_change, RemoteTiming())
            else:
                keeper = EngineKeeper(spec, self._tools, self._timing)
            self._keepers[spec.name] = keeper
            self._tasks.start(keeper.run(), f"keep {spec.name}")

    def statuses(self) -> list[EngineStatus]:
        """The status of every engine, in the order they were started."""
        return [keeper.status for keeper in self._keepers.values()]

    def replicas(self) -> list[Replica]:
        """The engines that may be sent requests."""
        return [
            Replica(
                f"{keeper.spec.version}-{keeper.spec.index}",
                keeper.spec.model,
                keeper.spec.version,
                keeper.spec.address,
                keeper.served_name,
            )
            for keeper in self._keepers.values()
            if keeper.status.state is EngineState.READY
        ]

    def is_settled(self) -> bool:
        """True when no engine is on its way up any more."""
        return all(status.state in (EngineState.READY, EngineState.FAILED) for status in self.statuses())

    def ready_names(self) -> list[str]:
        """Public ids of the versions that have a ready engine, one for each engine."""
        return [f"{status.model}:{status.version}" for status in self.statuses() if status.state is EngineState.READY]

    async def close(self) -> None:
        """Stop every engine, all at once, and wait until no process is left."""
        for keeper in self._keepers.values():
            keeper.stop()
        patience_s = self._timing.stop_grace_s + 5
        try:
            async with asyncio.timeout(patience_s):
                while len(self._tasks):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            await self._tasks.close()
        for spawner in (self._tools.fork_spawner, self._tools.spawner):
            if spawner is not None:
                await spawner.close()
