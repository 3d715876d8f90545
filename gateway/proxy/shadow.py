"""Copies of requests for another version, whose answers no client sees.

A client whose request is copied has its answer before the copy is sent. Copies wait until an engine has room for them,
and are dropped first: when too many wait, or one has waited for too long.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from gateway.errors import GatewayError
from gateway.fleet.replica import Replica
from gateway.proxy import body as request_body
from gateway.proxy.answers import read_question
from gateway.proxy.asking import Asked, ask
from gateway.proxy.body import Fields
from gateway.proxy.call import Call, Client
from gateway.proxy.copies import CopiedClient, Copy, Held, Room, is_greedy, read_both
from gateway.proxy.scoring import Asking, list_tokens, score
from gateway.proxy.upstream import Upstream
from gateway.proxy.waiting import Demand
from gateway.tasks import TaskSet
from gateway.telemetry.metrics import CopyCounter
from gateway.telemetry.observations import Copied, Observed, Observer, Texts
from gateway.traffic.routes import RouteBoard, Target, VersionRoute
from gateway.traffic.shadow import Score, Shadow, compare, compare_scores

logger = logging.getLogger(__name__)

_MOST_WAITING = 100
_LONGEST_WAIT_S = 30.0
_LOOK_EVERY_S = 0.1
_LONGEST_TEXT = 4000
_TELL_AFTER_S = 0.2
_TELL_AT = 64


class Shadows:
    """The copies of one relay. `running` are the requests under way by address, of which copies are some."""

    def __init__(
        self,
        board: RouteBoard,
        upstream: Upstream,
        running: dict[str, int],
        counter: CopyCounter,
        observer: Observer,
        demand: Demand,
    ) -> None:
        self._board = board
        self._upstream = upstream
        self._running = running
        self._counter = counter
        self._observer = observer
        self._demand = demand
        self._waiting: deque[Copy] = deque()
        self._room = Room()
        self._told: list[Copied] = []
        self._telling: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = TaskSet()
        self._is_closed = False

    def watch(self, call: Call, client: Client, fields: Fields, target: Target) -> Client:
        """The client to answer instead of `client`, if the request is to be copied: `fields` as the client sent them.

        Copied are requests that the split has given to another version than the shadow.
        """
        shadow = target.model.shadow
        if shadow is None or not target.unit or shadow.version == target.version.name:
            return client
        if not (call.head.endpoint.is_judged and call.head.endpoint.is_generation):
            return client
        if not shadow.takes(call.record.request_id):
            return client
        held = Held(self._room)
        if not held.take(len(call.body)):
            self._counter.count_copy(target.model.name, shadow.version, "dropped")
            return client
        copy = Copy(call.head, dict(fields), call.record, target, shadow, len(call.body), held)
        return CopiedClient(client, copy, self._offer, partial(self._count, outcome="dropped"))

    async def close(self) -> None:
        """Send nothing any more, and end what is under way."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        await self._tasks.close()
        self._tell()

    def _offer(self, copy: Copy) -> None:
        if self._is_closed:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._count(copy, "dropped")
            return
        self._waiting.append(copy)
        if self._timer is None:  # not at once: the client's next request goes first
            self._timer = asyncio.get_running_loop().call_later(0, self._look)

    def _look(self) -> None:
        """Send what there is room for, drop what cannot be sent or has waited for too long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _ in range(len(self._waiting)):
            copy = self._waiting.popleft()
            shadow, version = self._find_shadow(copy), self._find_version(copy)
            if shadow is None or version is None or not version.replicas:
                if shadow is not None and version is not None and version.can_wake:
                    self._demand(copy.record.model, shadow.version)
                self._count(copy, "dropped")
                continue
            replica = min(version.replicas, key=lambda one: self._running.get(one.address, 0))
            if self._running.get(replica.address, 0) < shadow.concurrency:
                self._take(replica.address)
                sending = self._tasks.start(self._send(copy, version, replica), "send a copy")
                sending.add_done_callback(partial(self._settle, replica.address))
            elif time.monotonic() - copy.ended_s > _LONGEST_WAIT_S:
                self._count(copy, "dropped")
            else:
                self._waiting.append(copy)
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _find_version(self, copy: Copy) -> VersionRoute | None:
        model = self._board.routes.models.get(copy.record.model)
        return None if model is None else model.versions.get(copy.shadow.version)

    def _find_shadow(self, copy: Copy) -> Shadow | None:
        """What the copy is for, as it is by now; None if it was ended, or others compare with it."""
        model = self._board.routes.models.get(copy.record.model)
        shadow = None if model is None else model.shadow
        known = copy.shadow
        return shadow if shadow is not None and (shadow.version, shadow.stage) == (known.version, known.stage) else None

    async def _send(self, copy: Copy, version: VersionRoute, replica: Replica) -> None:
        try:
            fields = dict(copy.fields)
            endpoint = copy.head.endpoint
            body = request_body.rewrite(fields, version, endpoint, replica.served_name, copy.body_bytes)
            request_id = f"{copy.record.request_id}-shadow"
            asked = await ask(self._upstream, replica, endpoint.path, body, request_id, copy.head.engine_lines)
            await self._compare(copy, version, replica, asked)
        except GatewayError as error:  # the version refuses what another took, by its bounds of pictures, say
            logger.debug("a copy of %s was not sent: %s", copy.record.request_id, error)
            self._count(copy, "dropped")
        except Exception:
            logger.exception("a copy of %s failed inside the gateway", copy.record.request_id)
            self._count(copy, "dropped")

    def _take(self, address: str) -> None:
        self._running[address] = self._running.get(address, 0) + 1

    def _give_back(self, address: str) -> None:
        left = self._running[address] - 1
        if left:
            self._running[address] = left
        else:
            del self._running[address]

    def _settle(self, address: str, sending: asyncio.Task[None]) -> None:
        """A copy is done with, or will not be sent: others may."""
        self._give_back(address)
        if self._waiting and not self._is_closed:
            self._look()

    async def _compare(self, copy: Copy, version: VersionRoute, replica: Replica, asked: Asked) -> None:
        # In a thread: of a long stream every event is read.
        (primary, ours), (shadow, theirs) = await asyncio.to_thread(read_both, copy, asked)
        are_greedy, tokens = is_greedy(copy, version), None
        if are_greedy and ours is not None and theirs is not None and ours.text != theirs.text:
            tokens = await self._read_tokens(replica, ours.text, theirs.text)
        values = dict(compare(primary, shadow, is_greedy=are_greedy, tokens=tokens))
        current = self._find_shadow(copy)  # it may have been changed meanwhile
        are_plain = ours is not None and theirs is not None and ours.is_plain and theirs.is_plain
        if current is not None and current.cross_score and are_plain:
            values |= await self._cross_score(copy, Asking(version, replica), primary.text or "", shadow.text or "")
        texts, current = None, self._find_shadow(copy)
        if current is not None and current.keep_texts:
            said = (read_question(copy.fields), primary.text or "", shadow.text or "")
            texts = Texts(*(text[:_LONGEST_TEXT] for text in said))
        record = copy.record
        told = Copied(
            record.request_id, record.model, record.version, copy.shadow.version, copy.shadow.stage, copy.target.unit,
            values, texts,
        )  # fmt: skip
        self._told.append(told)
        if len(self._told) >= _TELL_AT:
            self._tell()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_TELL_AFTER_S, self._tell)
        self._count(copy, "failed" if shadow.is_failed else "compared")

    def _tell(self) -> None:
        """Tell of what was compared, as the ledger does: many in one go."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        told, self._told = self._told, []
        if told:
            self._observer(Observed(copies=told))

    async def _read_tokens(self, replica: Replica, ours: str, theirs: str) -> tuple[list[int], list[int]] | None:
        """Both answers in tokens of one engine, since others may cut them otherwise."""
        one, other = await list_tokens(self._upstream, replica, ours, theirs)
        return None if one is None or other is None else (one, other)

    async def _cross_score(self, copy: Copy, other: Asking, ours: str, theirs: str) -> dict[str, float]:
        """Have both engines say how likely they find both answers; nothing where one of them cannot."""
        of_primary, of_shadow = [await self._score(copy, other, text) for text in (ours, theirs)]
        return dict(compare_scores(of_primary, of_shadow))

    async def _score(self, copy: Copy, other: Asking, text: str) -> Score | None:
        primary = self._find_primary(copy)
        if primary is None:
            return None
        with self._under_way(primary.replica.address):
            return await score(self._upstream, primary, other, copy.head, copy.fields, text)

    @contextmanager
    def _under_way(self, address: str) -> Iterator[None]:
        """Count one request more at an engine."""
        self._take(address)
        try:
            yield
        finally:
            self._give_back(address)

    def _find_primary(self, copy: Copy) -> Asking | None:
        """The engine that has answered the client, or another one of its version, if it has time for this."""
        model = self._board.routes.models.get(copy.record.model)
        version = None if model is None else model.versions.get(copy.record.version)
        if version is None or not version.replicas:
            return None
        own = next((one for one in version.replicas if one.name == copy.record.replica), version.replicas[0])
        return Asking(version, own) if self._running.get(own.address, 0) < copy.shadow.concurrency else None

    def _count(self, copy: Copy, outcome: str) -> None:
        self._counter.count_copy(copy.record.model, copy.shadow.version, outcome)
