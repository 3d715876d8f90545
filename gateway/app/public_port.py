"""Everything behind the public port, from the socket to the engines' connections: what makes a process a relay."""

import asyncio
import ctypes
import functools
import gc
import logging
import socket
from dataclasses import dataclass
from typing import Any

from gateway.api.auth import KeyRing
from gateway.api.heads import HeadReader
from gateway.api.lane import Lane, LaneProtocol
from gateway.api.openai import GiveFeedback, build_public_app
from gateway.app.ports import Server, serve_on
from gateway.proxy.forward import Forwarder
from gateway.proxy.shadow import Shadows
from gateway.proxy.upstream import Upstream
from gateway.proxy.waiting import Demand, WaitingRoom
from gateway.settings import Settings
from gateway.tasks import TaskSet
from gateway.telemetry.ledger import RequestLedger
from gateway.telemetry.metrics import RelayCounts
from gateway.telemetry.observations import Observer, Observing
from gateway.telemetry.request_log import RequestLog
from gateway.traffic.routes import RouteBoard, Routes

logger = logging.getLogger(__name__)

_STREAM_END_S = 1.0
_FLUSH_S = 4.0
_COLLECT_EVERY = 20_000  # objects; requests leave no circles behind, so there is little to find
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_KEPT_BYTES = 32 * 2**20  # the most that glibc takes
_MOST_KEPT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Seams:
    """How a relay reaches control and the engines.

    It tells by `demand` which versions are asked for while they sleep, and `observer` of requests that have ended;
    `give_feedback` keeps what clients say of them.
    """

    demand: Demand
    observer: Observer
    give_feedback: GiveFeedback


class PublicPort:
    """A relay's inside. It counts in `counts`, and places requests by the snapshots on `board`."""

    @classmethod
    def build(cls, settings: Settings, board: RouteBoard, counts: RelayCounts, seams: Seams) -> "PublicPort | None":
        """None, with the reason logged, when the request log cannot be opened."""
        server = settings.server
        try:
            log = RequestLog(server.access_log_path) if server.access_log else None
            return cls(settings, board, counts, seams, log)
        except OSError as error:
            logger.error("server.access_log_path cannot be written: %s", error)  # noqa: TRY400 - a sentence is enough
            return None

    def __init__(
        self, settings: Settings, board: RouteBoard, counts: RelayCounts, seams: Seams, log: RequestLog | None
    ) -> None:
        server = settings.server
        self._log = log
        self._counts = counts
        self._board = board
        self._ledger = RequestLedger(log, counts, Observing(seams.observer))
        self._upstream = Upstream(
            first_byte_timeout_s=server.first_byte_timeout_s, idle_timeout_s=server.idle_timeout_s
        )
        self.forwarder = Forwarder(board, self._upstream, WaitingRoom(seams.demand, server.first_byte_timeout_s))
        self._shadows = Shadows(board, self._upstream, self.forwarder.running, counts, seams.observer, seams.demand)
        self.forwarder.watch = self._shadows.watch
        keys = KeyRing(board.routes.callers) if settings.auth.required else None
        lane = Lane(self.forwarder, self._ledger, keys, max_body_bytes=server.max_body_bytes)
        if keys is not None:
            board.listeners.append(functools.partial(_renew_keys, keys, lane.heads))
        self._give_feedback = seams.give_feedback
        self._app = build_public_app(board, self._tell_and_give, keys)
        self._protocol = functools.partial(LaneProtocol, lane)
        self._server: Server | None = None

    async def serve_on(self, sockets: list[socket.socket], tasks: TaskSet) -> None:
        """Answer from now on."""
        self._server = await serve_on(sockets, self._app, tasks, self._protocol)

    async def _tell_and_give(self, request_id: str, metric: str, value: float, caller: str) -> dict[str, Any]:
        """Feedback, after what it is of: most clients send it right after the answer, on the same connection."""
        self._ledger.tell()
        return await self._give_feedback(request_id, metric, value, caller)

    def read_counts(self) -> RelayCounts:
        """What has been done up to now."""
        self._ledger.tell()
        return self._counts

    def count_running(self, address: str) -> int:
        """Requests under way at an engine."""
        return self.forwarder.running.get(address, 0)

    def is_routed(self, address: str) -> bool:
        """True if requests may still be sent to an engine."""
        return self._board.routes.has_address(address)

    def count_ended(self, model: str, version: str) -> int:
        """Requests to a version that have ended."""
        return self._counts.count_ended(model, version)

    async def drain(self, grace_s: float, hurry: asyncio.Event) -> None:
        """New requests get 503, running answers may finish within the grace time; `hurry` ends the wait."""
        forwarder = self.forwarder
        forwarder.drain()
        await self._shadows.close()
        logger.info("draining: %d answers under way, up to %g s", forwarder.running_count, grace_s)
        try:
            async with asyncio.timeout(grace_s):
                while forwarder.running_count and not hurry.is_set():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        if forwarder.running_count:
            logger.warning("%d answers are cut off", forwarder.running_count)
        self._upstream.close()
        if forwarder.running_count:
            await asyncio.sleep(_STREAM_END_S)  # clients get their error events
        if self._server is not None:
            self._server.should_exit = True

    async def close(self) -> None:
        """Wait until every answer has left in full, and the request log is written."""
        if self._server is not None:
            await asyncio.wait([self._server.serving], timeout=_FLUSH_S)
        self._ledger.tell()
        if self._log is not None:
            self._log.close()


def settle_memory() -> None:
    """Set the process up for requests, once all is built and imported."""
    # A full collection would look at all of it, tens of milliseconds in which no token moves.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 20, 20)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc keep some of what large bodies leave free, where it gives it back to the system at once otherwise.

    To get it again page by page is half of what a request with a picture of 10 MB costs.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # other C libraries have none
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT_BYTES)


def _renew_keys(keys: KeyRing, heads: HeadReader, routes: Routes) -> None:
    """Let those in who may call by now."""
    if keys.replace(routes.callers):
        heads.forget()
