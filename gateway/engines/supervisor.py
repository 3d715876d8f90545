"""All engines of a gateway: a keeper for each that runs here, a watch over each that runs elsewhere.

Never decides what should run; control does.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from gateway.engines.engine import (
    EngineSpec,
    EngineState,
    EngineStatus,
    MountRefused,
    ProbeFailed,
    find_public_id,
)
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
        self._mounting = asyncio.Lock()
        self._named: dict[str, str] = {}

    def start(self, specs: Iterable[EngineSpec | RemoteSpec]) -> None:
        """Begin keeping the engines given; returns at once."""
        for spec in specs:
            keeper: EngineKeeper | RemoteWatch
            if isinstance(spec, RemoteSpec):
                keeper = RemoteWatch(spec, self._make_remote_probe, self._tools.on_change, RemoteTiming())
            else:
                keeper = EngineKeeper(spec, self._tools, self._timing)
                self._named |= {find_public_id(name): "" for name, _ in spec.adapters}
            self._keepers[spec.name] = keeper
            self._tasks.start(keeper.run(), f"keep {spec.name}")

    async def set_adapter(self, model: str, version: str, adapter: str, folder: Path | None) -> None:
        """Mount an adapter on every engine of a version, in the place of one with its name; or with None take it away.

        Nobody notices: requests under way end with the old one, which stays mounted for a grace time. Engines that are
        on their way up have it when they are ready. Raises MountRefused, and then all is as it was.
        """
        public_id = f"{model}:{version}+{adapter}"
        async with self._mounting:
            keepers = [keeper for keeper in self._find_keepers(model, version) if keeper.spec.remake is not None]
            if not keepers:
                raise MountRefused(f"{model}:{version} has no engine here that takes adapters")
            before = keepers[0].spec.adapters
            old = [name for name, _ in before if find_public_id(name) == public_id]
            wanted = tuple(pair for pair in before if pair[0] not in old)
            digests: dict[str, str] = {}
            name = public_id
            if folder is None and not old:
                raise MountRefused(f"{public_id} is not mounted")
            if folder is not None:
                digest = await self._admit_adapter(keepers[0].spec, public_id, folder)
                name = self._find_name(public_id, digest)
                wanted, digests = (*wanted, (name, folder)), {name: digest}
            specs = [keeper.spec.remake(wanted) for keeper in keepers if keeper.spec.remake is not None]
            if folder is not None and name not in old:
                await self._load(keepers, name, folder)
            old = [gone for gone in old if gone not in dict(wanted)]
            for keeper, spec in zip(keepers, specs, strict=True):
                keeper.hold(spec, digests)
        if old:
            self._tasks.start(self._unload_later(keepers, old), f"let go of {public_id}")

    async def _admit_adapter(self, spec: EngineSpec, public_id: str, folder: Path) -> str:
        admission = await asyncio.to_thread(self._tools.admit, replace(spec, adapters=((public_id, folder),)))
        if admission.fault is not None:
            raise MountRefused(admission.fault)
        return admission.digests.get(public_id, "")

    def _find_name(self, public_id: str, digest: str) -> str:
        """What engines call it: another name for other weights, so that no cache mistakes one for the other."""
        known = self._named.setdefault(public_id, digest)
        return public_id if known == digest else f"{public_id}@{digest[:12]}"

    async def _load(self, keepers: Sequence[EngineKeeper], name: str, folder: Path) -> None:
        loaded: list[EngineKeeper] = []
        try:
            for keeper in keepers:
                if keeper.status.state is EngineState.READY:
                    await keeper.load_adapter(name, folder)
                    loaded.append(keeper)
        except ProbeFailed as error:
            await self._unload(loaded, [name])
            raise MountRefused(str(error)) from error

    async def _unload(self, keepers: Sequence[EngineKeeper], names: Sequence[str]) -> None:
        for keeper in keepers:
            for name in names:
                # One that was started anew, or has it again by now, is left alone.
                if keeper.status.state is EngineState.READY and name not in keeper.status.adapters:
                    with contextlib.suppress(ProbeFailed):
                        await keeper.unload_adapter(name)

    async def _unload_later(self, keepers: Sequence[EngineKeeper], names: Sequence[str]) -> None:
        await asyncio.sleep(self._timing.unload_after_s)
        async with self._mounting:
            await self._unload(keepers, names)

    def _find_keepers(self, model: str, version: str) -> list[EngineKeeper]:
        return [
            keeper
            for keeper in self._keepers.values()
            if isinstance(keeper, EngineKeeper) and (keeper.spec.model, keeper.spec.version) == (model, version)
        ]

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
