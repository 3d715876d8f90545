"""Joining the engines of a gateway: the supervisor with its tools, and what it is to keep."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.control.admission import admit, read_digests
from gateway.control.plan import Planner
from gateway.control.serving import Serving
from gateway.engines.device import find_hardware, has_cuda, list_devices
from gateway.engines.diagnosis import explain_exit
from gateway.engines.engine import EngineSpec, EngineStatus
from gateway.engines.machine import Machine
from gateway.engines.process import DirectSpawner, ForkSpawner
from gateway.engines.remote import RemoteProbe, RemoteSpec
from gateway.engines.supervisor import Supervisor
from gateway.engines.tools import EngineProbe, KeeperTiming, KeeperTools, Traffic
from gateway.fleet.replica import VersionKey
from gateway.settings import Settings, SourceAddress, VersionSettings
from gateway.sources import Fetcher, Told


def build_supervisor(
    settings: Settings, fetcher: Fetcher, on_change: Callable[[EngineStatus], None], traffic: Traffic
) -> Supervisor:
    """A supervisor that keeps nothing yet."""

    async def fetch(address: SourceAddress, told: Told, public_id: str) -> Path:
        return (await fetcher.fetch(address, told, public_id=public_id)).folder

    can_fork = settings.engines.fork != "never" and not has_cuda()
    tools = KeeperTools(
        spawner=DirectSpawner(),
        fork_spawner=ForkSpawner() if can_fork else None,
        make_probe=_make_probe,
        fetch=fetch,
        admit=partial(admit, hardware=find_hardware()),
        read_digests=read_digests,
        explain=explain_exit,
        slots=asyncio.Semaphore(max(1, (os.cpu_count() or 1) // 2)),
        turns=asyncio.Lock(),
        on_change=on_change,
        traffic=traffic,
    )
    timing = KeeperTiming(start_timeout_s=settings.engines.start_timeout_s)
    devices = list_devices(Machine.here(), settings.engines.memory)
    return Supervisor(tools, timing, devices, _make_remote_probe)


class Staffing:
    """Has those engines kept that are to be served. `folder` gets their sockets; `fetcher` is the supervisor's."""

    def __init__(self, supervisor: Supervisor, fetcher: Fetcher, settings: Settings, folder: Path) -> None:
        self._supervisor = supervisor
        self._fetcher = fetcher
        self._planner = Planner(
            folder, Machine.here(), is_cpu=not has_cuda(), drain_grace_s=settings.server.drain_grace_s
        )
        self._kept: dict[VersionKey, VersionSettings] = {}

    def keep(self, serving: Serving) -> None:
        """Start the engines of versions that are new, retire those of versions that are gone; returns at once.

        Of a version that has other engines by now, those that it had before go on.
        """
        wanted = {(model.name, version.name): version for model in serving.models for version in model.versions}
        kept, self._kept = self._kept, wanted
        for gone in kept.keys() - wanted.keys():
            self._supervisor.retire(*gone)
            self._fetcher.forget(":".join(gone))
        for model in serving.models:
            for version in model.versions:
                before = kept.get((model.name, version.name), version)
                if (before.replicas, before.endpoints) != (version.replicas, version.endpoints):
                    self._supervisor.scale(model.name, version.name, self._planner.plan(model, version))
        new = [
            model.model_copy(update={"versions": tuple(v for v in model.versions if (model.name, v.name) not in kept)})
            for model in serving.models
        ]
        self._supervisor.start(self._planner.plan_all(new))
        for successor in serving.successors.keys() - kept.keys():  # the other one goes only when it is up
            self._supervisor.insist(*successor)


def _make_probe(spec: EngineSpec) -> EngineProbe:
    # httpx takes a tenth of a second to import; the first engine is on its way by now.
    from gateway.engines.probe import Probe

    return Probe(spec.address, spec.served_name)


def _make_remote_probe(spec: RemoteSpec) -> RemoteProbe:
    from gateway.engines.probe import Probe

    return Probe(spec.address, spec.model, health_timeout_s=2.0)
