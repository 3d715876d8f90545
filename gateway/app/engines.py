"""Joining the engines of a gateway: the supervisor with its tools, and what it is to keep."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.control.admission import admit
from gateway.control.plan import plan_engines
from gateway.engines.device import find_device, has_cuda
from gateway.engines.diagnosis import explain_exit
from gateway.engines.engine import EngineSpec, EngineStatus
from gateway.engines.keeper import EngineProbe, KeeperTiming, KeeperTools
from gateway.engines.machine import Machine
from gateway.engines.process import DirectSpawner, ForkSpawner
from gateway.engines.remote import RemoteProbe, RemoteSpec
from gateway.engines.supervisor import Supervisor
from gateway.settings import Settings


def build_supervisor(settings: Settings, on_change: Callable[[EngineStatus], None]) -> Supervisor:
    """A supervisor that keeps nothing yet."""
    can_fork = settings.engines.fork != "never" and not has_cuda()
    tools = KeeperTools(
        spawner=DirectSpawner(),
        fork_spawner=ForkSpawner() if can_fork else None,
        make_probe=_make_probe,
        admit=partial(admit, device=find_device()),
        explain=explain_exit,
        slots=asyncio.Semaphore(max(1, (os.cpu_count() or 1) // 2)),
        turns=asyncio.Lock(),
        on_change=on_change,
    )
    timing = KeeperTiming(start_timeout_s=settings.engines.start_timeout_s)
    return Supervisor(tools, timing, _make_remote_probe)


def start_engines(supervisor: Supervisor, settings: Settings, folder: Path) -> None:
    """Begin to keep every engine that the settings ask for; returns at once. `folder` gets their sockets."""
    supervisor.start(plan_engines(settings, folder, Machine.here(), is_cpu=not has_cuda()))


def _make_probe(spec: EngineSpec) -> EngineProbe:
    # httpx takes a tenth of a second to import; the first engine is on its way by now.
    from gateway.engines.probe import Probe

    return Probe(spec.address, spec.served_name)


def _make_remote_probe(spec: RemoteSpec) -> RemoteProbe:
    from gateway.engines.probe import Probe

    return Probe(spec.address, spec.model, health_timeout_s=2.0)
