"""Questions over a channel: each has a number, and its answer comes as a message with the same one, or never."""

import asyncio
import time
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

from gateway.processes.messages import AnyMessage

Answer = TypeVar("Answer")

_NOBODY = "nobody is there to answer"


class Questions(Generic[Answer]):
    """Those of one kind that are open, each for `timeout_s` at most."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # Answers to what a predecessor of this process asked are for nobody here.
        self._numbers = count(time.monotonic_ns())
        self._open: dict[int, asyncio.Future[Answer]] = {}
        self._is_over = False

    async def ask(self, send: Callable[[AnyMessage], None], write: Callable[[int], AnyMessage]) -> Answer:
        """Send the message that `write` makes of a number, and wait for its answer. Raises TimeoutError."""
        if self._is_over:
            raise TimeoutError(_NOBODY)
        number = next(self._numbers)
        self._open[number] = asyncio.get_running_loop().create_future()
        send(write(number))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._open[number]
        finally:
            del self._open[number]

    def give_up(self) -> None:
        """Nobody is there to answer any more: what is open, and what is asked from now on, ends with TimeoutError."""
        self._is_over = True
        for asked in self._open.values():
            if not asked.done():
                asked.set_exception(TimeoutError(_NOBODY))

    def take(self, number: int, answer: Answer) -> None:
        """An answer has come; nobody may wait for it any more."""
        asked = self._open.get(number)
        if asked is not None and not asked.done():
            asked.set_result(answer)
