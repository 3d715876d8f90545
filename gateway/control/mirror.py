"""What the state store holds, mirrored: read again and again, and the one way by which control writes.

While the store cannot be asked, what was read last goes on to count, and nothing is written.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from gateway.errors import StateUnavailable
from gateway.state import Documents, Event, Lease, Snapshot, Stale

logger = logging.getLogger(__name__)

T = TypeVar("T")

UNKNOWN = Snapshot(-1)
"""Before anything was read."""

_LOOK_EVERY_S = 0.25
_MOST_TRIES = 20
_MOST_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Decision(Generic[T]):
    """What is to be written, None removes a document, and what comes of it for the one who asked."""

    changes: Mapping[str, bytes | None]
    events: Sequence[Event]
    result: T


class StateMirror:
    """The documents of a store. `listeners` are called, on the event loop, with each later snapshot.

    `snapshot` is what somebody else has read before, and `remember` is told of what is read from then on.
    """

    def __init__(
        self,
        store: Documents,
        snapshot: Snapshot = UNKNOWN,
        remember: Callable[[Snapshot], None] = lambda snapshot: None,
    ) -> None:
        self.listeners: list[Callable[[Snapshot], None]] = []
        self.snapshot = snapshot
        self.is_away = True
        self._is_told = False
        self._store = store
        self._remember = remember
        self._lock = asyncio.Lock()
        self._late: deque[Event] = deque(maxlen=_MOST_EVENTS)

    @property
    def is_known(self) -> bool:
        """True once the store has been read."""
        return self.snapshot.revision >= 0

    def require(self) -> None:
        """Raises StateUnavailable while nothing can be written."""
        if self.is_away:
            raise StateUnavailable("The state cannot be asked now, so nothing can be changed.", retry_after_s=5)

    async def look(self) -> None:
        """Take notice of what has changed. Does not raise."""
        try:
            async with self._lock:
                await self._look()
        except StateUnavailable as error:
            if not self._is_told:
                logger.error("%s Until it is back, nothing can be changed.", error.message)  # noqa: TRY400
            self.is_away = self._is_told = True

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.look()
            if self._late and not self.is_away:
                await self._tell_late()

    async def commit(self, decide: Callable[[Mapping[str, bytes]], Decision[T]], lease: Lease | None = None) -> T:
        """Write what `decide` makes of the documents as they are; it is asked again if others were faster.

        Raises what `decide` does, StateUnavailable, and LeaseLost.
        """
        async with self._lock:
            for _ in range(_MOST_TRIES):
                if not self.is_known:
                    await self._look()
                decision = decide(self.snapshot.documents)
                if not decision.changes and not decision.events:
                    return decision.result
                try:
                    revision = await self._store.commit(
                        self.snapshot.revision, decision.changes, _date(decision.events), lease
                    )
                except Stale:
                    await self._look()
                    continue
                self._come_back()
                merged = {**self.snapshot.documents, **decision.changes}
                documents = {name: value for name, value in merged.items() if value is not None}
                self._take(Snapshot(revision, documents))
                return decision.result
        raise StateUnavailable("Too many gateways write at once: try again.", retry_after_s=1)

    def note(self, event: Event) -> None:
        """Write an event that nothing depends on, as soon as that can be."""
        self._late.append(_date([event])[0])

    async def _tell_late(self) -> None:
        events = list(self._late)
        try:
            await self.commit(lambda documents: Decision({}, events, None))
        except StateUnavailable:
            return
        for _ in events:
            self._late.popleft()

    async def _look(self) -> None:
        known = self.snapshot
        snapshot = await self._store.read(known.revision)
        if snapshot is not None and snapshot.revision < known.revision:
            logger.warning("the store has lost what was decided last: it is put back")
            await self._store.restore(known)
            snapshot = await self._store.read(known.revision)
        self._come_back()
        if snapshot is not None:
            self._take(snapshot)

    def _come_back(self) -> None:
        self.is_away = False
        if self._is_told:
            logger.warning("the state is back")
        self._is_told = False

    def _take(self, snapshot: Snapshot) -> None:
        is_new = snapshot.documents != self.snapshot.documents or not self.is_known
        is_later = snapshot.revision != self.snapshot.revision
        self.snapshot = snapshot
        if is_later:
            self._remember(snapshot)
        for listener in self.listeners if is_new else ():
            try:
                listener(snapshot)
            except Exception:  # a defect in one must not end the looking, nor pass for a refused change
                logger.exception("what the state says by now could not be taken up")


def _date(events: Sequence[Event]) -> list[Event]:
    now = time.time()
    return [event if event.at else msgspec.structs.replace(event, at=now) for event in events]
