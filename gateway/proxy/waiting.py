"""Requests for versions whose engines sleep: held until one of them is up, which this asks for.

A held request costs its body and nothing else; it is let go by the route snapshot that brings a replica.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from gateway.errors import GatewayError, NoReplica, OperatorFault
from gateway.fleet.replica import VersionKey
from gateway.proxy.call import Call, Client
from gateway.traffic.routes import Routes

logger = logging.getLogger(__name__)

_SLEEPY = ("asleep", "draining")
_MOST_HELD = 1000
_MOST_HELD_BYTES = 256 * 2**20

Demand = Callable[[str, str], None]
"""Asks for a version of a model to be woken."""


class Sent(Protocol):
    """A call on its way, as the client's side sees it."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def hang_up(self) -> None: ...


class Held:
    """One call that waits; from when it is sent on, whatever it became."""

    def __init__(self, room: "WaitingRoom", call: Call, client: Client, target: VersionKey) -> None:
        self.call = call
        self.client = client
        self.target = target
        self.sent: Sent | None = None
        self.is_paused = False
        self.timer: asyncio.TimerHandle | None = None
        self._room = room

    def pause(self) -> None:
        """The client does not keep up."""
        self.is_paused = True
        if self.sent is not None:
            self.sent.pause()

    def resume(self) -> None:
        """The client takes more."""
        self.is_paused = False
        if self.sent is not None:
            self.sent.resume()

    def hang_up(self) -> None:
        """The client is gone."""
        if self.sent is not None:
            self.sent.hang_up()
        else:
            self._room.drop(self)
            self.call.record.status, self.call.record.outcome = 499, "hung_up"


class WaitingRoom:
    """The calls of one relay that wait, each for `limit_s` at most."""

    def __init__(self, demand: Demand, limit_s: float) -> None:
        self._demand = demand
        self._limit_s = limit_s
        self._held: dict[Held, Callable[[Call, Client], Sent]] = {}
        self._waiting: Counter[VersionKey] = Counter()
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, call: Call, client: Client, target: VersionKey, send: Callable[[Call, Client], Sent]) -> Held:
        """Hold a call until its `target` can be sent to. Raises NoReplica when too many wait."""
        size_bytes = len(call.body)
        if len(self._held) >= _MOST_HELD or self._held_bytes + size_bytes > _MOST_HELD_BYTES:
            message = f"Too many requests wait for engines to start, {':'.join(target)} among them: try again shortly."
            raise NoReplica(message, retry_after_s=10)
        held = Held(self, call, client, target)
        held.timer = asyncio.get_running_loop().call_later(self._limit_s, self._give_up, held)
        self._held[held] = send
        self._held_bytes += size_bytes
        self._waiting[target] += 1
        if self._waiting[target] == 1:
            self._demand(*target)
        return held

    def drop(self, held: Held) -> None:
        """It waits no longer. Its body is as it came until now."""
        if self._held.pop(held, None) is None:
            return
        self._held_bytes -= len(held.call.body)
        self._waiting[held.target] -= 1
        if held.timer is not None:
            held.timer.cancel()

    def look_again(self, routes: Routes) -> None:
        """Send on what can be sent, or can never be, by a new snapshot. What still sleeps is asked for again."""
        asleep: set[VersionKey] = set()
        for held, send in list(self._held.items()):
            model = routes.models.get(held.target[0])
            version = None if model is None else model.versions.get(held.target[1])
            if version is None or version.replicas or not version.can_wake:
                self.drop(held)
                self._send(held, send)
            elif version.state in _SLEEPY:
                asleep.add(held.target)
        for target in asleep:
            self._demand(*target)

    def close(self, make_error: Callable[[], GatewayError]) -> None:
        """Refuse all that wait."""
        for held in list(self._held):
            self.drop(held)
            held.client.refuse(make_error())

    def _send(self, held: Held, send: Callable[[Call, Client], Sent]) -> None:
        try:
            held.sent = send(held.call, held.client)
        except GatewayError as error:
            held.client.refuse(error)
        except Exception:
            logger.exception("request %s failed inside the gateway", held.call.record.request_id)
            held.client.refuse(OperatorFault("The gateway failed on this request; its log has the details."))
        else:
            if held.is_paused:
                held.sent.pause()

    def _give_up(self, held: Held) -> None:
        self.drop(held)
        name = ":".join(held.target)
        held.client.refuse(
            NoReplica(f"No engine of {name} was up within {self._limit_s:g} s: try again.", retry_after_s=5)
        )
