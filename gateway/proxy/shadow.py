"""Copies of requests for another version, whose answers no client sees.

A client whose request is copied has its answer before the copy is sent. Copies wait until an engine has room for them,
and are dropped first: when too many wait, or one has waited for too long.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakSet

from gateway.errors import GatewayError
from gateway.fleet.replica import Replica
from gateway.proxy import body as request_body
from gateway.proxy.answers import read_question, read_text
from gateway.proxy.asking import Asked, ask
from gateway.proxy.body import Fields
from gateway.proxy.call import Call, Client, RequestHead
from gateway.proxy.scoring import Asking, list_tokens, score
from gateway.proxy.sse import read_stream_usage, read_usage
from gateway.proxy.upstream import Upstream
from gateway.proxy.waiting import Demand
from gateway.tasks import TaskSet
from gateway.telemetry.metrics import CopyCounter
from gateway.telemetry.observations import Copied, Observed, Observer, Texts
from gateway.telemetry.requests import RequestRecord
from gateway.traffic.routes import RouteBoard, Target, VersionRoute
from gateway.traffic.shadow import Reply, Shadow, compare, compare_scores

logger = logging.getLogger(__name__)

_MOST_WAITING = 100
_MOST_BYTES = 64 * 2**20
_MOST_ANSWER_BYTES = 2 * 2**20
_LONGEST_WAIT_S = 30.0
_LOOK_EVERY_S = 0.1
_LONGEST_TEXT = 4000
_FAILED_FROM = 500


@dataclass(slots=True, eq=False, weakref_slot=True)
class Copy:
    """A request that is to be sent again, with what came of it the first time. Times by the monotonic clock.

    `body_bytes` is the length of what the client sent, `size_bytes` of that and of the `pieces` of the answer.
    """

    head: RequestHead
    fields: Fields
    record: RequestRecord
    target: Target
    shadow: Shadow
    body_bytes: int
    size_bytes: int
    pieces: list[bytes] = field(default_factory=list)
    ended_s: float = 0.0


class CopiedClient:
    """A client whose request is copied: passes on what it is told, keeps it, and offers the copy once all is said."""

    def __init__(self, client: Client, copy: Copy, offer: Callable[[Copy], None]) -> None:
        self._client = client
        self._copy = copy
        self._offer = offer

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """See `Client`. An answer to a client's mistake is no answer to compare with."""
        self._client.answer(status, lines, body)
        if status < 400 or status >= _FAILED_FROM:
            self._keep(body)
            self._finish()

    def refuse(self, error: GatewayError) -> None:
        """See `Client`."""
        self._client.refuse(error)
        if error.status >= _FAILED_FROM:
            self._finish()

    def abandon(self) -> None:
        """See `Client`."""
        self._client.abandon()

    def begin(self, status: int, lines: bytes) -> None:
        """See `Client`. All pieces are to come by `write`."""
        self._client.begin(status, lines)

    def write(self, data: bytes) -> None:
        """See `Client`."""
        self._client.write(data)
        self._keep(data)

    def end(self, data: bytes) -> None:
        """See `Client`."""
        self._client.end(data)
        self._keep(data)
        self._finish()

    def _keep(self, data: bytes) -> None:
        copy = self._copy
        copy.size_bytes += len(data)
        if copy.size_bytes <= copy.body_bytes + _MOST_ANSWER_BYTES:
            copy.pieces.append(data)

    def _finish(self) -> None:
        copy = self._copy
        if copy.size_bytes <= copy.body_bytes + _MOST_ANSWER_BYTES:
            copy.ended_s = time.monotonic()
            self._offer(copy)


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
        self._held: WeakSet[Copy] = WeakSet()  # whatever becomes of its client, a copy leaves with the last who has it
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
        size_bytes = len(call.body)
        if self._count_bytes() + size_bytes > _MOST_BYTES:
            self._counter.count_copy(target.model.name, shadow.version, "dropped")
            return client
        copy = Copy(call.head, dict(fields), call.record, target, shadow, size_bytes, size_bytes)
        self._held.add(copy)
        return CopiedClient(client, copy, self._offer)

    def _count_bytes(self) -> int:
        """What copies take: those that wait, and those of requests that are being answered."""
        return sum(copy.size_bytes for copy in self._held)

    async def close(self) -> None:
        """Send nothing any more, and end what is under way."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        await self._tasks.close()

    def _offer(self, copy: Copy) -> None:
        if self._is_closed:
            return
        if len(self._waiting) >= _MOST_WAITING or self._count_bytes() > _MOST_BYTES:
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
            version = self._find_version(copy)
            if version is None or not version.replicas:
                if version is not None and version.can_wake:
                    self._demand(copy.record.model, copy.shadow.version)
                self._count(copy, "dropped")
                continue
            replica = min(version.replicas, key=lambda one: self._running.get(one.address, 0))
            if self._running.get(replica.address, 0) < copy.shadow.concurrency:
                self._running[replica.address] = self._running.get(replica.address, 0) + 1
                sending = self._tasks.start(self._send(copy, version, replica), "send a copy")
                sending.add_done_callback(partial(self._give_back, replica.address))
            elif time.monotonic() - copy.ended_s > _LONGEST_WAIT_S:
                self._count(copy, "dropped")
            else:
                self._waiting.append(copy)
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _find_version(self, copy: Copy) -> VersionRoute | None:
        model = self._board.routes.models.get(copy.record.model)
        return None if model is None else model.versions.get(copy.shadow.version)

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

    def _give_back(self, address: str, sending: asyncio.Task[None]) -> None:
        """A copy is done with, or will not be sent: others may."""
        left = self._running[address] - 1
        if left:
            self._running[address] = left
        else:
            del self._running[address]
        if self._waiting and not self._is_closed:
            self._look()

    async def _compare(self, copy: Copy, version: VersionRoute, replica: Replica, asked: Asked) -> None:
        primary, shadow = _read_primary(copy), _read_shadow(asked)
        tokens = None
        if not primary.is_failed and not shadow.is_failed and _is_greedy(copy, version):
            tokens = await self._read_tokens(replica, primary.text, shadow.text)
        values = dict(compare(primary, shadow, tokens))
        if copy.shadow.cross_score and not primary.is_failed and not shadow.is_failed:
            values |= await self._cross_score(copy, version, replica, primary.text, shadow.text)
        texts = None
        if copy.shadow.keep_texts:
            said = (read_question(copy.fields), primary.text, shadow.text)
            texts = Texts(*(text[:_LONGEST_TEXT] for text in said))
        record = copy.record
        told = Copied(
            record.request_id, record.model, record.version, copy.shadow.version, copy.shadow.stage, copy.target.unit,
            values, texts,
        )  # fmt: skip
        self._observer(Observed(copies=[told]))
        self._count(copy, "failed" if shadow.is_failed else "compared")

    async def _read_tokens(self, replica: Replica, ours: str, theirs: str) -> tuple[list[int], list[int]] | None:
        """Both answers in tokens of one engine, since others may cut them otherwise."""
        if ours == theirs:
            return [], []
        one, other = await list_tokens(self._upstream, replica, ours, theirs)
        return None if one is None or other is None else (one, other)

    async def _cross_score(
        self, copy: Copy, version: VersionRoute, replica: Replica, ours: str, theirs: str
    ) -> Mapping[str, float]:
        """Have both engines say how likely they find both answers; nothing where one of them cannot."""
        primary = self._find_primary(copy)
        if primary is None:
            return {}
        other = Asking(version, replica)
        of_primary = await score(self._upstream, primary, other, copy.head, copy.fields, ours)
        of_shadow = await score(self._upstream, primary, other, copy.head, copy.fields, theirs)
        return dict(compare_scores(of_primary, of_shadow))

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


def _read_primary(copy: Copy) -> Reply:
    record = copy.record
    if record.outcome != "done":
        return Reply(is_failed=True)
    document = b"".join(copy.pieces)
    is_timed = not record.is_held_up  # else the time would be the client's
    return Reply(
        is_failed=False,
        text=read_text(document, is_stream=record.is_stream),
        tokens_out=None if record.is_estimated else record.tokens_out,
        ttft_s=_since(record, record.first_byte_s) if record.is_stream and is_timed else None,
        total_s=copy.ended_s - record.sent_s if is_timed else None,
    )


def _read_shadow(asked: Asked) -> Reply:
    if asked.is_failed:
        return Reply(is_failed=True)
    usage = read_stream_usage(asked.document) if asked.is_stream else read_usage(asked.document)
    return Reply(
        is_failed=False,
        text=read_text(asked.document, is_stream=asked.is_stream),
        tokens_out=None if usage is None else usage.tokens_out,
        ttft_s=asked.first_byte_s if asked.is_stream else None,
        total_s=asked.total_s,
    )


def _since(record: RequestRecord, after_s: float | None) -> float | None:
    """From when the engine was asked, of what is measured from when the client did."""
    return None if after_s is None else record.started_s + after_s - record.sent_s


def _is_greedy(copy: Copy, version: VersionRoute) -> bool:
    """True if both versions were asked for their likeliest answer."""
    return all(request_body.is_greedy(copy.fields, of.defaults) for of in (copy.target.version, version))
