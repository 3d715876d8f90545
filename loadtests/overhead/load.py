"""The shapes of load: a closed loop, arrivals on a clock, streams held open, and a mixture.

Decides nothing, and measures nothing but latency.
"""

import asyncio
import ctypes
import os
import random
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

from .client import Connection, Tally, connect, fetch
from .requests import Requests, Wish

_ANSWER_TIMEOUT_S = 60.0
_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1


class ClosedLoop:
    """So many connections, each sending its next request when the last one is answered."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self.tally = Tally()
        self._port = port
        self._requests = requests
        self._connections: list[Connection] = []
        self._is_over = False

    async def start(self, connections: int) -> None:
        """Connect and send the first requests."""
        self._connections = [await connect(self._port, self.tally) for _ in range(connections)]
        for connection in self._connections:
            connection.ask(next(self._requests), self._go_on)

    def stop(self) -> None:
        """Hang up everywhere."""
        self._is_over = True
        for connection in self._connections:
            connection.close()

    def _go_on(self, connection: Connection) -> None:
        if connection.is_open and not self._is_over:
            connection.ask(next(self._requests), self._go_on)


class Alarm:
    """A kernel timer on the event loop, exact to some tens of microseconds; the loop's own count whole milliseconds."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._fired = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._fire)

    async def wait_until(self, when_s: float) -> None:
        """Return when the monotonic clock shows `when_s`; after one turn of the loop if that is past."""
        if when_s <= time.monotonic():
            await asyncio.sleep(0)
            return
        self._fired.clear()
        seconds, rest = divmod(when_s, 1)
        setting = (ctypes.c_long * 4)(0, 0, int(seconds), max(1, int(rest * 1e9)))  # interval, then first expiry
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, setting, None)
        await self._fired.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _fire(self) -> None:
        os.read(self._fd, 8)
        self._fired.set()


class Arrivals:
    """Requests that come by the clock, whether or not earlier ones are answered; late sending counts as latency."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self.tally = Tally()
        self.latencies_s: list[float] = []
        self._port = port
        self._requests = requests
        self._idle: list[Connection] = []
        self._waiting: deque[float] = deque()
        self._connections: list[Connection] = []

    async def run(self, gaps_s: Iterator[float], duration_s: float, connections: int = 64) -> list[float]:
        """Send for `duration_s` with these pauses; returns latencies from each intended time, in seconds."""
        self._connections = [await connect(self._port, self.tally) for _ in range(connections)]
        self._idle = list(self._connections)
        alarm = Alarm()
        sent, due_s = 0, time.monotonic() + 0.01
        end_s = due_s + duration_s
        while due_s < end_s:
            await alarm.wait_until(due_s)
            self._waiting.append(due_s)
            self._send()
            sent, due_s = sent + 1, due_s + next(gaps_s)
        alarm.close()
        deadline_s = time.monotonic() + _ANSWER_TIMEOUT_S
        while self.tally.answers < sent and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)
        for connection in self._connections:
            connection.close()
        return self.latencies_s

    def _send(self) -> None:
        while self._waiting and self._idle:
            connection, due_s = self._idle.pop(), self._waiting.popleft()
            connection.ask(next(self._requests), partial(self._end, due_s))

    def _end(self, due_s: float, connection: Connection) -> None:
        self.latencies_s.append(time.monotonic() - due_s)
        if connection.is_open:
            self._idle.append(connection)
        if self._waiting:
            self._send()


class OpenStreams:
    """Streams that are held open, each on its own connection."""

    def __init__(self, port: int) -> None:
        self.tally = Tally()
        self._port = port
        self._connections: list[Connection] = []

    async def start(self, requests: Iterator[bytes], count: int, timeout_s: float = 60.0) -> int:
        """Open `count` streams and wait for each one's first event; returns how many are then open."""
        begun: set[Connection] = set()
        for place in range(count):
            connection = await connect(self._port, self.tally)
            self._connections.append(connection)
            connection.ask(next(requests), on_event=partial(begun.add, connection))
            if place % 32 == 31:
                await asyncio.sleep(0.01)  # a listen queue is finite
        deadline_s = time.monotonic() + timeout_s
        while len(begun) < count and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
        return sum(connection.is_busy for connection in begun)

    def stop(self) -> None:
        """Hang up everywhere."""
        for connection in self._connections:
            connection.close()


class Mixture:
    """Full, streamed, aborted and failed requests in a fixed proportion; a lost connection is replaced."""

    PERCENT: ClassVar = {"full": 60, "streamed": 25, "aborted": 10, "failed": 5}

    def __init__(self, port: int, requests: Requests, seed: int) -> None:
        self.tally = Tally()
        self.sent = 0
        self.faults = 0  # full and streamed requests without a good answer
        self._port = port
        self._draw = random.Random(seed)
        short: dict[str, Any] = {"stream": True, "max_tokens": 20}
        usage: dict[str, Any] = {"stream_options": {"include_usage": True}}
        self._writers: dict[str, tuple[Iterator[bytes], ...]] = {
            "full": (requests.repeat(),),
            "streamed": (requests.repeat(**short), requests.repeat(**short, **usage)),
            "aborted": (requests.repeat(**short), requests.repeat(wish=Wish.SLOW)),
            "failed": (
                requests.repeat(wish=Wish.FAIL),
                requests.repeat(wish=Wish.CUT_BEFORE),
                requests.repeat(wish=Wish.CUT_WITHIN, **short),
            ),
        }

    async def run(self, count: int, workers: int, budget_s: float) -> None:
        """Send `count` requests, fewer if `budget_s` runs out first. Raises OSError when the router is gone."""
        last, deadline_s = self.sent + count, time.monotonic() + budget_s
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(last, deadline_s))

    async def _work(self, last: int, deadline_s: float) -> None:
        kinds, weights = list(self.PERCENT), list(self.PERCENT.values())
        connection = await connect(self._port, self.tally)
        while self.sent < last and time.monotonic() < deadline_s:
            self.sent += 1
            kind = self._draw.choices(kinds, weights)[0]
            request = next(self._draw.choice(self._writers[kind]))
            timeout_s = self._draw.uniform(0.02, 0.15) if kind == "aborted" else _ANSWER_TIMEOUT_S
            await fetch(connection, request, timeout_s)
            self.faults += kind in ("full", "streamed") and not connection.is_good
            if not connection.is_open or kind == "aborted":
                connection.close()
                connection = await connect(self._port, self.tally)
        connection.close()


def list_gaps(kind: str, rate: float, seed: int) -> Iterator[float]:
    """Pauses between arrivals, in seconds: `poisson` draws them, `even` repeats one."""
    draw = random.Random(seed)
    while True:
        yield draw.expovariate(rate) if kind == "poisson" else 1 / rate
