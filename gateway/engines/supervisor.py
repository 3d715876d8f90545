"""All engines of a gateway: a keeper for each that runs here, a watch over each that runs elsewhere.

Never decides what should run; control does.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from gateway.checkpoints import UnreadableError, find_checkpoint
from gateway.engines.engine import (
    EngineSpec,
    EngineState,
    EngineStatus,
    MountRefused,
    ProbeFailed,
    find_public_id,
    write_public_id,
)
from gateway.engines.idleness import Idleness
from gateway.engines.keeper import EngineKeeper
from gateway.engines.placement import Device
from gateway.engines.remote import RemoteProbe, RemoteSpec, RemoteTiming, RemoteWatch
from gateway.engines.room import Idle, Room
from gateway.engines.tools import KeeperTiming, KeeperTools
from gateway.fleet.replica import Replica, VersionKey
from gateway.tasks import TaskSet

logger = logging.getLogger(__name__)


class Supervisor:
    """Runs keepers and watches and closes what they share. One task per engine."""

    def __init__(
        self, tools: KeeperTools, timing: KeeperTiming, devices: Sequence[Device],
        make_remote_probe: Callable[[RemoteSpec], RemoteProbe],
    ) -> None:  # fmt: skip
        self._tools = replace(tools, on_change=self._hear)
        self._on_change = tools.on_change
        self._timing = timing
        self._make_remote_probe = make_remote_probe
        self._keepers: dict[str, EngineKeeper | RemoteWatch] = {}
        self._tasks = TaskSet()
        self._clock = TaskSet()
        self._idleness = Idleness()
        self._room = Room(devices, Idle(self._find_idle, lambda version: self.rest(*version)))
        self._running: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[str] = set()
        self._next: dict[str, EngineSpec | RemoteSpec] = {}
        self._unloading = TaskSet()
        self._unload_at: dict[str, float] = {}
        self._mounting: dict[tuple[str, str], asyncio.Lock] = {}
        self._named: dict[str, str] = {}

    def start(self, specs: Iterable[EngineSpec | RemoteSpec]) -> None:
        """Begin keeping the engines given; returns at once."""
        if not len(self._clock):
            self._clock.start(self._let_rest(), "let engines sleep")
        for spec in specs:
            if spec.name in self._keepers:  # one of that name has not gone yet
                self._next[spec.name] = spec
            else:
                self._keep(spec)

    def _keep(self, spec: EngineSpec | RemoteSpec) -> None:
        keeper: EngineKeeper | RemoteWatch
        if isinstance(spec, RemoteSpec):
            keeper = RemoteWatch(spec, self._make_remote_probe, self._tools.on_change, RemoteTiming())
        else:
            keeper = EngineKeeper(spec, self._tools, self._timing, self._room)
            self._named |= {find_public_id(name): "" for name, _ in spec.adapters}
        self._keepers[spec.name] = keeper
        self._running[spec.name] = self._tasks.start(keeper.run(), f"keep {spec.name}")

    def retire(self, model: str, version: str) -> None:
        """Keep the engines of a version no longer: they end with their last answer, and are forgotten then."""
        for name, keeper in list(self._keepers.items()):
            if (keeper.spec.model, keeper.spec.version) == (model, version):
                self._next.pop(name, None)
                self._retire_one(name)

    def scale(self, model: str, version: str, specs: Iterable[EngineSpec | RemoteSpec]) -> None:
        """Keep these engines of a version and no others; those that are there already go on."""
        wanted = {spec.name: spec for spec in specs}
        for name, keeper in list(self._keepers.items()):
            if (keeper.spec.model, keeper.spec.version) == (model, version):
                spec = wanted.get(name)
                is_same = spec is not None and not (isinstance(spec, RemoteSpec) and spec != keeper.spec)
                if is_same and name not in self._leaving:
                    del wanted[name]
                    continue
                self._next.pop(name, None)
                self._retire_one(name)
        self.start(wanted.values())

    def _retire_one(self, name: str) -> None:
        self._room.let_leave(name)
        self._keepers[name].retire()
        if name not in self._leaving:
            self._leaving.add(name)
            self._tasks.start(self._forget(name), f"forget {name}")

    async def _forget(self, name: str, heir: EngineKeeper | None = None) -> None:
        if name in self._running:
            await asyncio.wait((self._running[name],))
        keeper = self._keepers.pop(name, None)
        if keeper is None:  # its version was retired meanwhile
            return
        del self._running[name]
        self._leaving.discard(name)
        if heir is not None:
            heir.inherit(keeper.status)
        self._tools.on_change(keeper.status)
        if (spec := self._next.pop(name, None)) is not None:
            self._keep(spec)

    def _hear(self, status: EngineStatus) -> None:
        """Pass on how an engine is; let one whose guesses are mostly wrong be replaced."""
        self._on_change(status)
        keeper = self._keepers.get(status.name)
        if isinstance(keeper, EngineKeeper) and keeper.spec.plain is not None:
            fault = keeper.drafts.judge(keeper.spec.min_acceptance)
            if fault is not None:
                self._tasks.start(self._switch_off(keeper, fault), f"replace {status.name}")

    async def _switch_off(self, keeper: EngineKeeper, fault: str) -> None:
        """Have an engine without guesses take this one's place as soon as it is ready; no request notices."""
        name = keeper.spec.name
        async with self._mounting.setdefault((keeper.spec.model, keeper.spec.version), asyncio.Lock()):
            plain = keeper.spec.plain
            if plain is None or not keeper.is_wanted or plain.name in self._keepers:
                return
            self.start([plain])
        logger.warning("%s: %s: %s is to take its place, without speculation", name, fault, plain.name)
        keeper.annotate(f"to be replaced by {plain.name}, without speculation: {fault}")
        heir = self._keepers[plain.name]
        if not isinstance(heir, EngineKeeper):
            return
        heir.insist()
        heir.annotate(f"speculation is switched off: {fault}")
        while heir.status.state not in (EngineState.READY, EngineState.FAILED, EngineState.STOPPED):
            await asyncio.sleep(self._timing.poll_s)
        if heir.status.state is EngineState.READY:
            logger.warning("%s: speculation is switched off, %s is ready in its place", name, plain.name)
            if name in self._leaving:  # its version was retired meanwhile
                return
            self._leaving.add(name)
            self._room.let_leave(name)
            keeper.retire()
            await self._forget(name, heir)
        elif heir.status.state is EngineState.FAILED:
            logger.error("%s stays, with speculation: %s failed beside it", name, plain.name)
            keeper.annotate(f"it stays, as {plain.name} failed beside it ({heir.status.reason}), though {fault}")
            heir.retire()
            await self._forget(plain.name)

    def rest(self, model: str, version: str) -> None:
        """Let the engines of a version sleep: they end with their last answer, until they are woken."""
        for keeper in self._find_keepers(model, version):
            keeper.rest()

    def wake(self, model: str, version: str) -> None:
        """Start the engines of a version that sleep, or were going to."""
        self._idleness.forget((model, version))
        for keeper in self._find_keepers(model, version):
            keeper.wake()

    def insist(self, model: str, version: str) -> None:
        """Do not let the engines of a version sleep before they have been up; but nobody else is to sleep for them."""
        for keeper in self._find_keepers(model, version):
            keeper.insist()

    async def _let_rest(self) -> None:
        """Let versions sleep that may, and that nobody has asked for long enough."""
        while True:
            await asyncio.sleep(self._timing.idle_every_s)
            for version, idle_s in self._find_idle().items():
                keepers = self._find_keepers(*version)
                if idle_s >= (keepers[0].spec.sleep_after_s or 0.0):
                    for keeper in keepers:
                        keeper.doze()

    def _find_idle(self) -> dict[VersionKey, float]:
        """Versions that may sleep and have no request under way, and how long that has been so, in seconds."""
        specs = [keeper.spec for keeper in self._own_keepers()]
        sleepy = {(spec.model, spec.version) for spec in specs if spec.sleep_after_s is not None}
        found = {version: self._find_idle_s(version) for version in sleepy}
        return {version: idle_s for version, idle_s in found.items() if idle_s is not None}

    def _find_idle_s(self, version: VersionKey) -> float | None:
        keepers, traffic = self._find_keepers(*version), self._tools.traffic
        keepers = [keeper for keeper in keepers if self._room.has_place(keeper.spec.name)]
        if not keepers or not all(one.status.state is EngineState.READY or one.is_dozing for one in keepers):
            self._idleness.forget(version)
            return None
        running = sum(traffic.count_running(keeper.spec.address) for keeper in keepers)
        ended = traffic.count_ended(*version)
        idle_s = self._idleness.note(version, ended=ended, running=running, now_s=time.monotonic())
        return None if running else idle_s

    async def set_adapter(self, model: str, version: str, adapter: str, folder: Path | None) -> None:
        """Mount an adapter on every engine of a version, in the place of one with its name; or with None take it away.

        Nobody notices: requests under way end with the old one, which stays mounted for a grace time. Engines that are
        on their way up have it when they are ready. Raises MountRefused, and then all is as it was.
        """
        async with self._mounting.setdefault((model, version), asyncio.Lock()):
            try:
                async with asyncio.timeout(self._timing.mount_timeout_s):
                    await self._set_adapter(model, version, adapter, folder)
            except TimeoutError as error:
                limit = f"{self._timing.mount_timeout_s:g}"
                raise MountRefused(f"the engines did not do it within {limit} s: ask again") from error

    async def _set_adapter(self, model: str, version: str, adapter: str, folder: Path | None) -> None:
        public_id = write_public_id(model, version, adapter)
        found = self._find_keepers(model, version)
        if any(one.spec.settle is not None and one.status.state is not EngineState.FAILED for one in found):
            raise MountRefused(f"{model}:{version} is still being fetched: ask again when it is there")
        keepers = [keeper for keeper in found if keeper.spec.remake is not None]
        if not keepers:
            raise MountRefused(f"{model}:{version} has no engine here that takes adapters")
        before = keepers[0].spec.adapters
        old = [name for name, _ in before if find_public_id(name) == public_id]
        wanted = tuple(pair for pair in before if pair[0] not in old)
        digests: dict[str, str] = {}
        if folder is None and not old:
            raise MountRefused(f"{public_id} is not mounted")
        if folder is not None:
            folder = _find_folder(folder)
            digest = await self._admit_adapter(keepers[0].spec, public_id, folder)
            name = self._find_name(public_id, digest)
            wanted, digests = (*wanted, (name, folder)), {name: digest}
        specs = [keeper.spec.remake(wanted) for keeper in keepers if keeper.spec.remake is not None]
        if folder is not None:
            await self._mount_everywhere(keepers, public_id, name, folder, digest)
        # No await from here on: whoever is ready has it, and all are told of at once.
        for keeper, spec in zip(keepers, specs, strict=True):
            keeper.hold(spec, digests)
        for keeper in keepers:
            keeper.tell()
        for gone in old:
            if gone not in dict(wanted):
                self._unload_at[gone] = time.monotonic() + self._timing.unload_after_s
                self._unloading.start(self._unload_later(keepers, gone), f"let go of {gone}")

    async def _admit_adapter(self, spec: EngineSpec, public_id: str, folder: Path) -> str:
        admission = await asyncio.to_thread(self._tools.admit, replace(spec, adapters=((public_id, folder),)))
        if admission.fault is not None:
            raise MountRefused(admission.fault)
        return admission.digests.get(public_id, "")

    def _find_name(self, public_id: str, digest: str) -> str:
        """What engines call it: another name for other weights, so that no cache mistakes one for the other."""
        known = self._named.setdefault(public_id, digest)
        return public_id if known == digest else f"{public_id}@{digest[:12]}"

    async def _mount_everywhere(
        self, keepers: Sequence[EngineKeeper], public_id: str, name: str, folder: Path, digest: str
    ) -> None:
        """Mount it on every ready engine; on return none is ready without it. Or on none, and MountRefused."""
        if not any(keeper.status.state is EngineState.READY for keeper in keepers):
            raise MountRefused("no engine of the version is ready to try it on: ask again when one is")
        is_new = [keeper for keeper in keepers if not keeper.mounts.has(name)]
        try:
            # An engine may become ready, or die and come back, while another one loads.
            while waiting := [k for k in keepers if k.status.state is EngineState.READY and not k.mounts.has(name)]:
                for keeper in waiting:
                    await keeper.mounts.mount(name, folder)
                alone = replace(keepers[0].spec, adapters=((public_id, folder),))
                digests = await asyncio.to_thread(self._tools.read_digests, alone)
                if digests.get(public_id, "") != digest:
                    raise MountRefused("its files changed while the engines loaded them")
        except (ProbeFailed, MountRefused, asyncio.CancelledError) as error:
            for keeper in is_new:
                with contextlib.suppress(ProbeFailed):
                    await keeper.mounts.unmount(name)
            if isinstance(error, ProbeFailed):
                raise MountRefused(str(error)) from error
            raise

    async def _unload_later(self, keepers: Sequence[EngineKeeper], name: str) -> None:
        await asyncio.sleep(self._timing.unload_after_s)
        for keeper in keepers:
            # It may have been asked for again meanwhile, and taken away again.
            is_wanted = name in dict(keeper.spec.adapters) or time.monotonic() < self._unload_at[name]
            if keeper.status.state is EngineState.READY and not is_wanted:
                with contextlib.suppress(ProbeFailed):
                    await keeper.mounts.unmount(name)

    def _own_keepers(self) -> list[EngineKeeper]:
        return [keeper for keeper in self._keepers.values() if isinstance(keeper, EngineKeeper)]

    def _find_keepers(self, model: str, version: str) -> list[EngineKeeper]:
        own = self._own_keepers()
        return [keeper for keeper in own if (keeper.spec.model, keeper.spec.version) == (model, version)]

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
        settled = (EngineState.READY, EngineState.ASLEEP, EngineState.FAILED)
        return all(status.state in settled for status in self.statuses())

    def ready_names(self) -> list[str]:
        """Public ids of the versions that have a ready engine, one for each engine."""
        return [f"{status.model}:{status.version}" for status in self.statuses() if status.state is EngineState.READY]

    async def close(self) -> None:
        """Stop every engine, all at once, and wait until no process is left."""
        self._next.clear()
        await self._clock.close()
        await self._unloading.close()
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


def _find_folder(folder: Path) -> Path:
    try:
        return find_checkpoint(folder)
    except UnreadableError as unreadable:
        raise MountRefused(str(unreadable.finding)) from unreadable
