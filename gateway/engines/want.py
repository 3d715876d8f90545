"""What is wanted of one engine: that it is up, rests until it is asked for, or is gone."""

import asyncio
from enum import StrEnum


class Wanted(StrEnum):
    """All but `ENDED` let answers under way end first. `DOZING` is asleep with its process and its place kept."""

    UP = "up"
    DOZING = "dozing"
    ASLEEP = "asleep"
    GONE = "gone"
    ENDED = "ended"


NOT_UP = (Wanted.DOZING, Wanted.ASLEEP, Wanted.GONE, Wanted.ENDED)


class Want:
    """What is wanted, and a way to wait until it is something else. What is to be gone stays so."""

    def __init__(self) -> None:
        self.value = Wanted.UP
        self.was_woken = False  # somebody waits for it, or did
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

    async def until(self, *wanted: Wanted) -> None:
        """Wait until one of these is wanted."""
        while self.value not in wanted:
            await self._changed.wait()
