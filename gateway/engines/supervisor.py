"""All engines of this host: one keeper each. Never decides what should run; control does."""

import asyncio
from collections.abc import Iterable

from gateway.engines.engine import EngineSpec, EngineState, EngineStatus
from gateway.engines.keeper import EngineKeeper, KeeperTiming, KeeperTools
from gateway.tasks import TaskSet


class Supervisor:
    """Runs keepers and closes what they share. One task per engine."""

    def __init__(self, tools: KeeperTools, timing: KeeperTiming) -> None:
        self._tools = tools
        self._timing = timing
        self._keepers: dict[str, EngineKeeper] = {}
        self._tasks = TaskSet()

    def start(self, specs: Iterable[EngineSpec]) -> None:
        """Begin keeping the engines given; returns at once."""
        for spec in specs:
            keeper = EngineKeeper(spec, self._tools, self._timing)
            self._keepers[spec.name] = keeper
            self._tasks.start(keeper.run(), f"keep {spec.name}")

    def statuses(self) -> list[EngineStatus]:
        """The status of every engine, in the order they were started."""
        return [keeper.status for keeper in self._keepers.values()]

    def ready_specs(self) -> list[EngineSpec]:
        """The engines that may be sent requests."""
        return [keeper.spec for keeper in self._keepers.values() if keeper.status.state is EngineState.READY]

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
