"""A gateway of one process: relay and control share it, and what they tell each other are plain calls."""

import asyncio
import logging

from gateway.api.admin import build_admin_app
from gateway.app.deciding import Deciding, Seams, make_name
from gateway.app.engines import Staffing, build_supervisor
from gateway.app.orders import Orders
from gateway.app.ports import bind, serve_on, show_url
from gateway.app.public_port import PublicPort, settle_memory
from gateway.app.public_port import Seams as PublicSeams
from gateway.app.running import Gateway, OnUp, runtime_dir
from gateway.control.serving import Serving
from gateway.engines.drafting import sum_drafts
from gateway.settings import Settings
from gateway.sources import Fetcher, open_source
from gateway.tasks import TaskSet
from gateway.telemetry.drafts import tell_drafts
from gateway.telemetry.metrics import RelayCounts, render
from gateway.traffic.routes import RouteBoard

logger = logging.getLogger(__name__)

_FLUSH_S = 4.0


async def serve(settings: Settings, on_up: OnUp | None) -> int:
    """Serve until told to stop; returns the exit code."""
    orders = Orders()
    public_sockets = bind(settings.server.host, settings.server.port)
    admin_sockets = bind(settings.admin.host, settings.admin.port)
    if not public_sockets or not admin_sockets:
        return 1
    board = RouteBoard()
    public_seams = PublicSeams(
        lambda model, version: supervisor.wake(model, version),
        lambda observed: deciding.evidence.take(observed),
        lambda *said: deciding.feedback.give(*said),
    )
    public = PublicPort.build(settings, board, RelayCounts(), public_seams)
    if public is None:
        return 1
    fetcher = Fetcher(settings.cache.folder, open_source)
    supervisor = build_supervisor(settings, fetcher, lambda status: deciding.control.note(), public)

    async def read_metrics() -> bytes:
        extra = (*tell_drafts(sum_drafts(supervisor.statuses())), *deciding.list_metrics())
        return render(public.read_counts(), public.forwarder.running, extra)

    tasks = TaskSet()
    with runtime_dir(settings) as folder:
        staffing = Staffing(supervisor, fetcher, settings, folder)
        seams = Seams(supervisor, staffing.keep, board.publish, fetcher)
        deciding = await Deciding.begin(settings, Serving(settings.models), seams, make_name())
        staffing.keep(deciding.control.serving)
        orders.on_reload = deciding.reload_soon
        await public.serve_on(public_sockets[0], tasks)
        app = build_admin_app(deciding.desk, read_metrics, settings.admin.secret)
        admin = await serve_on(admin_sockets[0], app, tasks)
        gateway = Gateway(supervisor, show_url(public_sockets[0][0]), show_url(admin_sockets[0][0]))
        logger.info("answering on %s, admin on %s", gateway.public_url, gateway.admin_url)
        settle_memory()
        if on_up is not None:
            tasks.start(on_up(gateway), "greeting")
        await orders.stop.wait()
        await public.drain(settings.server.drain_grace_s, orders.hurry)
        await public.close()
        admin.should_exit = True
        await deciding.close()  # after the last request has been told of
        await supervisor.close()
        await asyncio.wait([admin.serving], timeout=_FLUSH_S)
        await tasks.close()
    return 0
