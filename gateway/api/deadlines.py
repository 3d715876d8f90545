"""The clock over all client connections: one timer for all, since one for each request would cost more than routing."""

import asyncio
from typing import Protocol

_SWEEP_S = 1.0


class Overdue(Protocol):
    """A connection that may be too slow: when the loop's clock passes `due_s`, it is told to give up."""

    due_s: float

    def give_up(self) -> None:
        """The time is over; sets a new `due_s`, or closes."""


class Deadlines:
    """Watches over connections from `watch` until `forget`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: set[Overdue] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def watch(self, connection: Overdue) -> None:
        """Look at a connection once a second."""
        self._watched.add(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def forget(self, connection: Overdue) -> None:
        """The connection is gone."""
        self._watched.discard(connection)

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep) if self._watched else None
        now_s = self._loop.time()
        for connection in list(self._watched):
            if connection.due_s < now_s:
                connection.give_up()
