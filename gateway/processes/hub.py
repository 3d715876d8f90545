"""The main process's part between control and the relays: passes on what they tell each other, and remembers the last.

Decides nothing. Because it remembers, a relay that is started while control is away still gets its routes, and control
that is started anew gets engines and counts.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from gateway.control.mirror import UNKNOWN
from gateway.processes.messages import (
    AdapterSet,
    AnyMessage,
    Ask,
    Demand,
    Engines,
    FeedbackGiven,
    GiveFeedback,
    Hurry,
    Keep,
    KeepSettings,
    NewRoutes,
    Observations,
    RelayState,
    Reload,
    Remember,
    Report,
    Reports,
    SetAdapter,
    Welcome,
)
from gateway.tasks import TaskSet
from gateway.traffic.routes import Routes

logger = logging.getLogger(__name__)

_ASK_TIMEOUT_S = 0.5
_END_TIMEOUT_S = 10.0
_LATE_S = 2.0
_MOST_LATE = 1000  # messages for control: what comes of a quarter of a minute at least


class KeptProcess(Protocol):
    """A process as the hub sees it; `child.Child` is the real one."""

    starts: int

    @property
    def is_up(self) -> bool: ...
    async def run(self) -> None: ...
    async def came_up(self) -> bool: ...
    def send(self, message: AnyMessage) -> None: ...
    def retire(self) -> None: ...
    def stop(self) -> None: ...


MakeProcess = Callable[[Callable[[], Welcome], Callable[[AnyMessage], None]], KeptProcess]
"""Makes a process from what welcomes it, at each of its starts, and from what takes its messages."""


class Hub:
    """Control and the relays of one gateway. `engines` gives the engines as they are; settings and `serving` are JSON.

    `keep` and `set_adapter` do what control asks of them, `wake` what relays ask; `set_adapter` says why if it refuses.
    """

    def __init__(
        self,
        engines: Callable[[], Engines],
        keep: Callable[[bytes], None],
        set_adapter: Callable[[SetAdapter], Awaitable[str | None]],
        wake: Callable[[str, str], None],
        name: str,
        control_settings: bytes,
        serving: bytes,
        relay_settings: bytes,
        make_control: MakeProcess,
        make_relays: Sequence[MakeProcess],
    ) -> None:
        self._engines = engines
        self._keep = keep
        self._serving = serving
        self._set_adapter = set_adapter
        self._wake = wake
        started = int(time.time())
        self._control_settings = control_settings
        self._relay_settings = relay_settings
        self._routes = Routes()
        self._state = UNKNOWN
        self._late: deque[AnyMessage] = deque(maxlen=_MOST_LATE)
        self._reports: list[Report | None] = [None] * len(make_relays)
        self._reported_s: list[float | None] = [None] * len(make_relays)
        self._asked: dict[int, set[int]] = {}
        self._control = make_control(
            lambda: Welcome(self._control_settings, self._engines(), self._serving, self._state, name, started),
            self._hear_control,
        )
        self._relays = [self._make_relay(slot, make) for slot, make in enumerate(make_relays)]
        self._tasks = TaskSet()
        self._relays_running: list[asyncio.Task[None]] = []
        self._control_running: asyncio.Task[None] | None = None

    async def start(self) -> bool:
        """Start all of them; False when one could not do its work, which it has told."""
        self._control_running = self._tasks.start(self._control.run(), "keep control")
        self._relays_running = [self._tasks.start(relay.run(), "keep a relay") for relay in self._relays]
        came_up = await asyncio.gather(*(process.came_up() for process in (self._control, *self._relays)))
        return all(came_up)

    @property
    def serving(self) -> bytes:
        """What is served, as control has said it last."""
        return self._serving

    def tell_engines(self) -> None:
        """Tell control how the engines are now."""
        self._control.send(self._engines())

    def reload(self) -> None:
        """Have control read the settings file again."""
        self._pass_to_control(Reload())

    def count_running(self, address: str) -> int:
        """Requests under way at an engine, as all relays have reported last: each says so every second.

        Of one that has been silent for longer nobody knows: it counts as one.
        """
        now_s = time.monotonic()
        late = sum(now_s - reported_s > _LATE_S for reported_s in self._reported_s if reported_s is not None)
        return late + sum(report.running.get(address, 0) for report in self._reports if report is not None)

    def is_routed(self, address: str) -> bool:
        """True if relays may still send requests to an engine, by the last snapshot they got."""
        return self._routes.has_address(address)

    def count_ended(self, model: str, version: str) -> int:
        """Requests to a version that have ended, as all relays have reported last."""
        return sum(report.counts.count_ended(model, version) for report in self._reports if report is not None)

    async def drain(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Let every relay finish its answers and end. `hurry` ends the grace time early; nobody outlives its end."""
        tasks = TaskSet()
        hurrying = tasks.start(hurry.wait(), "wait for a second signal")
        self._control.retire()  # whoever ends us may have ended it too
        for relay in self._relays:
            relay.stop()
        running = set(self._relays_running)
        limit_s = asyncio.get_running_loop().time() + grace_s + _END_TIMEOUT_S
        while running and not hurrying.done():
            timeout_s = limit_s - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait({*running, hurrying}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            running -= done
        if running:
            self._send_to_relays(Hurry())
            await asyncio.wait(running, timeout=_END_TIMEOUT_S)
        await tasks.close()

    async def close(self) -> None:
        """End control, and by force whatever is left."""
        if self._control_running is not None:
            self._control.stop()
            await asyncio.wait((self._control_running,), timeout=_END_TIMEOUT_S)
        await self._tasks.close()

    def _make_relay(self, slot: int, make: MakeProcess) -> KeptProcess:
        return make(lambda: self._welcome_relay(slot), lambda message: self._hear_relay(slot, message))

    def _welcome_relay(self, slot: int) -> Welcome:
        last = self._reports[slot]
        if last is None:
            return Welcome(self._relay_settings, routes=self._routes)
        self._reports[slot] = msgspec.structs.replace(last, running={})  # what ran there has ended with it
        return Welcome(self._relay_settings, routes=self._routes, counts=last.counts)

    def _hear_control(self, message: AnyMessage) -> None:
        self._flush()
        if isinstance(message, NewRoutes):
            self._routes = message.routes
            self._send_to_relays(message)
        elif isinstance(message, Keep):
            self._serving = message.serving
            self._keep(message.serving)
        elif isinstance(message, KeepSettings):
            self._control_settings = message.settings
        elif isinstance(message, Remember):
            self._state = message.state
        elif isinstance(message, FeedbackGiven):
            self._relays[message.relay].send(message)
        elif isinstance(message, SetAdapter):
            self._tasks.start(self._pass_on(message), "set an adapter")
        elif isinstance(message, Ask):
            self._asked[message.number] = set(range(len(self._relays)))
            self._send_to_relays(message)
            asyncio.get_running_loop().call_later(_ASK_TIMEOUT_S, self._answer, message.number)

    async def _pass_on(self, message: SetAdapter) -> None:
        try:
            fault = await self._set_adapter(message)
        except Exception:
            logger.exception("setting an adapter failed inside the gateway")
            fault = "the gateway failed on this; its log has the details"
        self._control.send(AdapterSet(message.number, fault))

    def _hear_relay(self, slot: int, message: AnyMessage) -> None:
        if isinstance(message, Report):
            self._reports[slot] = message
            self._reported_s[slot] = time.monotonic()
            # The answer to one question is as good for those that were asked before it.
            for number in [number for number in self._asked if number <= message.answers]:
                self._asked[number].discard(slot)
                if not self._asked[number]:
                    self._answer(number)

        elif isinstance(message, Demand):
            self._wake(message.model, message.version)
        elif isinstance(message, Observations):
            self._pass_to_control(message)
        elif isinstance(message, GiveFeedback):
            self._flush()  # feedback is on requests that have been told of
            self._control.send(msgspec.structs.replace(message, relay=slot))  # its client does not wait for long

    def _pass_to_control(self, message: AnyMessage) -> None:
        """Send it, or keep it for as long as control is away."""
        self._late.append(message)
        self._flush()

    def _flush(self) -> None:
        """Send what was kept, once control is there again: it says so each second at least."""
        while self._control.is_up and self._late:
            self._control.send(self._late.popleft())

    def _answer(self, number: int) -> None:
        """Tell control what the relays have reported. One that is silent counts with what it said last."""
        if self._asked.pop(number, None) is not None:
            relays = zip(self._relays, self._reports, strict=True)
            self._control.send(Reports(number, [RelayState(relay.starts, report) for relay, report in relays]))

    def _send_to_relays(self, message: AnyMessage) -> None:
        for relay in self._relays:
            relay.send(message)
