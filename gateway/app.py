"""Builds every object, joins them, runs the two ports and closes everything again. Alone in knowing all rooms."""

import asyncio
import contextlib
import functools
import gc
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from gateway.api.admin import build_admin_app
from gateway.api.auth import KeyRing
from gateway.api.lane import Lane, LaneProtocol
from gateway.api.openai import build_public_app
from gateway.control.admission import admit
from gateway.control.control import Control
from gateway.control.plan import plan_engines
from gateway.engines.device import has_cuda
from gateway.engines.diagnosis import explain_exit
from gateway.engines.engine import EngineSpec
from gateway.engines.keeper import EngineProbe, KeeperTiming, KeeperTools
from gateway.engines.machine import Machine
from gateway.engines.process import DirectSpawner, ForkSpawner
from gateway.engines.remote import RemoteProbe, RemoteSpec
from gateway.engines.supervisor import Supervisor
from gateway.proxy.forward import Forwarder
from gateway.proxy.upstream import Upstream
from gateway.settings import Settings
from gateway.tasks import TaskSet
from gateway.telemetry.metrics import RelayMetrics
from gateway.telemetry.request_log import RequestLog
from gateway.telemetry.requests import RequestLedger
from gateway.traffic.routes import RouteBoard

logger = logging.getLogger(__name__)

_STREAM_END_S = 1.0
_FLUSH_S = 4.0
_COLLECT_EVERY = 20_000  # objects; requests leave no circles behind, so there is little to find


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to us: new requests get an answer while running ones are drained."""

    serving: "asyncio.Task[None]"

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Orders:
    """What signals ask for: the first one to stop, a second one to be quick about it."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._take)
        # Reserved for reading the file again: it must not end a gateway meanwhile.
        loop.add_signal_handler(signal.SIGHUP, logger.warning, "SIGHUP is ignored: settings are read at the start only")

    def _take(self) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()


@dataclass(frozen=True, slots=True)
class Gateway:
    """The running gateway, as those who started it see it. Ports are the real ones, also where 0 was asked for."""

    control: Control
    public_url: str
    admin_url: str


def run(settings: Settings, on_up: Callable[[Gateway], Coroutine[Any, Any, None]] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. `on_up` runs beside it once both ports answer."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, on_up))


async def _serve(settings: Settings, on_up: Callable[[Gateway], Coroutine[Any, Any, None]] | None) -> int:
    orders = _Orders()
    board = RouteBoard()
    control = Control(settings, board)
    upstream = Upstream(
        first_byte_timeout_s=settings.server.first_byte_timeout_s, idle_timeout_s=settings.server.idle_timeout_s
    )
    forwarder = Forwarder(board, upstream)
    metrics = RelayMetrics(lambda: forwarder.running)
    try:
        log = _open_request_log(settings)
    except OSError as error:
        logger.error("server.access_log_path cannot be written: %s", error)  # noqa: TRY400 - a sentence is enough
        return 1
    keys = _build_key_ring(settings)
    lane = Lane(forwarder, RequestLedger(log, metrics), keys, max_body_bytes=settings.server.max_body_bytes)
    key = settings.admin.key.get_secret_value() if settings.admin.key else None
    tasks = TaskSet()
    with _runtime_dir(settings) as runtime_dir:
        public_app, admin_app = build_public_app(board, keys), build_admin_app(control, metrics, key)
        protocol = functools.partial(LaneProtocol, lane)
        public = await _listen(public_app, settings.server.host, settings.server.port, tasks, protocol)
        admin = await _listen(admin_app, settings.admin.host, settings.admin.port, tasks)
        if public is None or admin is None:
            return 1
        supervisor = _build_supervisor(settings, control)
        control.start(supervisor, list(plan_engines(settings, runtime_dir, Machine.here(), is_cpu=not has_cuda())))
        gateway = Gateway(control, _url(public, settings.server.host), _url(admin, settings.admin.host))
        logger.info("answering on %s, admin on %s", gateway.public_url, gateway.admin_url)
        # A full collection looks at everything imported, some tens of milliseconds in which no token moves.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_EVERY, 20, 20)
        if on_up is not None:
            tasks.start(on_up(gateway), "greeting")
        await orders.stop.wait()
        await _drain(forwarder, control, settings.server.drain_grace_s, orders)
        upstream.close()  # cuts off what is left
        if forwarder.running_count:
            await asyncio.sleep(_STREAM_END_S)  # clients get their error events
        for server in (public, admin):
            server.should_exit = True
        await control.close()
        await asyncio.wait([server.serving for server in (public, admin)], timeout=_FLUSH_S)  # answers leave in full
        await tasks.close()
        if log is not None:
            log.flush()
    return 0


async def _drain(forwarder: Forwarder, control: Control, grace_s: float, orders: "_Orders") -> None:
    """New requests get 503, running answers may finish within the grace time; a second signal ends the wait."""
    control.drain()
    logger.info("draining: %d answers under way, up to %g s", forwarder.running_count, grace_s)
    try:
        async with asyncio.timeout(grace_s):
            while forwarder.running_count and not orders.hurry.is_set():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    if forwarder.running_count:
        logger.warning("%d answers are cut off", forwarder.running_count)


def _build_supervisor(settings: Settings, control: Control) -> Supervisor:
    can_fork = settings.engines.fork != "never" and not has_cuda()
    tools = KeeperTools(
        spawner=DirectSpawner(),
        fork_spawner=ForkSpawner() if can_fork else None,
        make_probe=_make_probe,
        admit=admit,
        explain=explain_exit,
        slots=asyncio.Semaphore(max(1, (os.cpu_count() or 1) // 2)),
        turns=asyncio.Lock(),
        on_change=control.note,
    )
    timing = KeeperTiming(start_timeout_s=settings.engines.start_timeout_s)
    return Supervisor(tools, timing, _make_remote_probe)


def _open_request_log(settings: Settings) -> RequestLog | None:
    return RequestLog(settings.server.access_log_path) if settings.server.access_log else None


def _build_key_ring(settings: Settings) -> KeyRing | None:
    if not settings.auth.required:
        return None
    return KeyRing({bytes.fromhex(key.sha256): key.name for key in settings.auth.keys})


def _make_probe(spec: EngineSpec) -> EngineProbe:
    # httpx takes a tenth of a second to import; the first engine is on its way by now.
    from gateway.engines.probe import Probe

    return Probe(spec.address, spec.served_name)


def _make_remote_probe(spec: RemoteSpec) -> RemoteProbe:
    from gateway.engines.probe import Probe

    return Probe(spec.address, spec.model, health_timeout_s=2.0)


async def _listen(app: Any, host: str, port: int, tasks: TaskSet, protocol: Any = "httptools") -> _Server | None:
    """Start a server and wait until it listens; None, with the reason logged, if it can't."""
    config = uvicorn.Config(
        app, host=host, port=port, loop="none", http=protocol, ws="none", lifespan="off", log_config=None,
        access_log=False, server_header=False, timeout_graceful_shutdown=2, timeout_keep_alive=75, backlog=2048,
    )  # fmt: skip
    server = _Server(config)
    server.serving = serving = tasks.start(_serve_forever(server), f"serve {host}:{port}")
    while not server.started:
        if serving.done():
            logger.error("nothing can listen on %s:%d: is another program using the port?", host, port)
            return None
        await asyncio.sleep(0.005)
    return server


async def _serve_forever(server: _Server) -> None:
    try:
        await server.serve()
    except SystemExit:  # how uvicorn says that it could not bind
        return


def _url(server: _Server, host: str) -> str:
    port = server.servers[0].sockets[0].getsockname()[1]
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - the address to show, not to bind
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


@contextlib.contextmanager
def _runtime_dir(settings: Settings) -> Iterator[Path]:
    """The folder for sockets, private to this user; a folder of our own making is removed at the end."""
    if settings.engines.runtime_dir is not None:
        settings.engines.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield settings.engines.runtime_dir
        return
    folder = Path(tempfile.mkdtemp(prefix="gateway-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
