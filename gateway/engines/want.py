"""What is wanted of one engine: that it is up, rests until it is asked for, or is gone."""

import asyncio
from collections.abc import Coroutine
from enum import StrEnum
from typing import TypeVar

from gateway.tasks import TaskSet, outcome_of

T = TypeVar("T")


class Wanted(StrEnum):
    """All but `ENDED` let answers under way end first. `DOZING` is asleep with its process and its place kept."""

    UP = "up"
    DOZING = "dozing"
    ASLEEP = "asleep"
    GONE = "gone"
    ENDED = "ended"


NOT_UP = (Wanted.DOZING, Wanted.ASLEEP, Wanted.GONE, Wanted.ENDED)


class Want:
    """What is wanted, and a way to wait until it is something else. What is to be gone stays so.

    One that `is_asked` for has requests waiting, and others may have to sleep for it. One that `is_due` must be up too,
    but nobody sleeps for it. One that `is_evicted` sleeps for another: who asks for it meanwhile waits until it did.
    """

    def __init__(self) -> None:
        self.value = Wanted.UP
        self.is_asked = False
        self.is_due = False
        self.is_evicted = False
        self._is_asked_again = False
        self._changed = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """True if the engine is to be up."""
        return self.value is Wanted.UP

    @property
    def is_leaving(self) -> bool:
        """True if the engine is not to come back."""
        return self.value in (Wanted.GONE, Wanted.ENDED)

    def set(self, wanted: Wanted) -> None:
        """Want something else from now on."""
        if self.value is wanted or self.value is Wanted.ENDED or (self.is_leaving and wanted is not Wanted.ENDED):
            return
        self.value = wanted
        self._changed.set()
        self._changed = asyncio.Event()

    def ask(self) -> None:
        """Requests wait for it."""
        if self.is_evicted:
            self._is_asked_again = True
            return
        self.is_asked = True
        self.set(Wanted.UP)

    def evict(self) -> None:
        """It is to sleep, so that another gets its place."""
        if self.value in (Wanted.UP, Wanted.DOZING):
            self.set(Wanted.ASLEEP)
            self.is_evicted = True

    def fall_asleep(self) -> None:
        """It sleeps from now on, unless it was asked for meanwhile."""
        self.is_asked = self.is_due = self.is_evicted = False
        if self._is_asked_again:
            self._is_asked_again = False
            self.ask()

    def be_up(self) -> None:
        """It is up, or goes on being so: whoever asked for it is served."""
        self.is_asked = self.is_due = self.is_evicted = self._is_asked_again = False
        self.set(Wanted.UP)

    async def while_up(self, work: Coroutine[None, None, T], name: str) -> T | None:
        """Do `work`, and give it up at once when something else is wanted than that the engine is up: then None."""
        tasks = TaskSet()
        working = tasks.start(outcome_of(work), f"{name} work")
        changing = tasks.start(self.until(*NOT_UP), f"{name} want")
        try:
            await asyncio.wait((working, changing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.close()
        if working.cancelled():
            return None
        outcome = working.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def until(self, *wanted: Wanted) -> None:
        """Wait until one of these is wanted."""
        while self.value not in wanted:
            await self._changed.wait()
