"""The main process of a gateway with several relays: keeps engines, control and relays, and decides nothing.

It is the parent of every other process. Control, which decides, can die and come back without an engine or a client
noticing: engines live as long as the main process, and relays go by the last snapshot.
"""

import asyncio
import itertools
import logging
import socket
from functools import partial
from pathlib import Path

from gateway.app.deciding import make_name
from gateway.app.engines import Staffing, build_supervisor
from gateway.app.orders import Orders
from gateway.app.ports import bind, show_url
from gateway.app.running import Gateway, OnUp, dump_settings, runtime_dir
from gateway.control.serving import Serving
from gateway.engines.engine import MountRefused
from gateway.processes.child import Child, ChildSpec, ChildTiming
from gateway.processes.hub import Hub
from gateway.processes.messages import Engines, SetAdapter
from gateway.settings import Settings
from gateway.sources import Fetcher, open_source
from gateway.tasks import TaskSet

logger = logging.getLogger(__name__)


async def serve(settings: Settings, on_up: OnUp | None) -> int:
    """Serve until told to stop; returns the exit code."""
    orders = Orders()
    server, admin = settings.server, settings.admin
    # They stay open here: what connects while a relay is dead waits for the one that takes its place.
    public_sockets = bind(server.host, server.port, server.relays)
    admin_sockets = bind(admin.host, admin.port)
    if not public_sockets or not admin_sockets:
        return 1
    level = logging.getLevelName(logging.getLogger().level)

    def spec(name: str, module: str, listeners: list[socket.socket]) -> ChildSpec:
        fds = tuple(listener.fileno() for listener in listeners)
        return ChildSpec(name, module, (level, *map(str, fds)), fds)

    async def set_adapter(asked: SetAdapter) -> str | None:
        try:
            folder = None if asked.folder is None else Path(asked.folder)
            await supervisor.set_adapter(asked.model, asked.version, asked.adapter, folder)
        except MountRefused as refused:
            return str(refused)
        return None

    serving = Serving(settings.models)
    control = spec("control", "gateway.app.control", admin_sockets[0])
    relays = [spec(f"relay {slot}", "gateway.app.relay", share) for slot, share in enumerate(public_sockets)]
    hub = Hub(
        lambda: Engines(supervisor.statuses(), supervisor.replicas()),
        lambda dumped: staffing.keep(Serving.load(dumped)),
        set_adapter,
        lambda model, version: supervisor.wake(model, version),
        make_name(),
        dump_settings(settings),
        serving.dump(),
        settings.model_dump_json(include={"server", "auth"}).encode(),
        partial(Child, control, ChildTiming()),
        [partial(Child, spec, ChildTiming()) for spec in relays],
    )
    fetcher = Fetcher(settings.cache.folder, open_source)
    supervisor = build_supervisor(settings, fetcher, lambda status: hub.tell_engines(), hub)
    orders.on_reload = hub.reload
    tasks = TaskSet()
    with runtime_dir(settings) as folder:
        staffing = Staffing(supervisor, fetcher, settings, folder)
        starting = tasks.start(hub.start(), "start")
        stopping = tasks.start(orders.stop.wait(), "stop")
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not (starting.done() and starting.result()):
            await hub.close()
            await tasks.close()
            return 0 if orders.stop.is_set() else 1
        staffing.keep(Serving.load(hub.serving))  # control answers already, and may have changed it
        gateway = Gateway(supervisor, show_url(public_sockets[0][0]), show_url(admin_sockets[0][0]))
        logger.info("answering on %s, admin on %s", gateway.public_url, gateway.admin_url)
        if on_up is not None:
            tasks.start(on_up(gateway), "greeting")
        await orders.stop.wait()
        for listener in itertools.chain(*public_sockets):
            listener.close()
        await hub.drain(server.drain_grace_s, orders.hurry)
        await supervisor.close()
        await hub.close()
        await tasks.close()
    return 0
