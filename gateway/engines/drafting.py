"""The watch over an engine's guesses: what has come of them, over all of its lives and lately. Asks nobody."""

from collections import deque
from collections.abc import Iterable

from gateway.engines.engine import EngineStatus
from gateway.telemetry.drafts import DraftCounts

WINDOW_TOKENS = 5000
"""Guessed tokens by which acceptance is judged: dozens of answers, of which no single one decides, and enough to know
the rate to within one and a half points of a hundred."""


class DraftWatch:
    """What has come of one engine's guesses. One writer: its keeper. `earlier` counts what it takes the place of."""

    def __init__(self, earlier: DraftCounts | None = None) -> None:
        self._earlier = earlier or DraftCounts()
        self._now = DraftCounts()
        self._looks = deque([DraftCounts()])
        self._is_judged = False

    @property
    def total(self) -> DraftCounts:
        """All that was counted: never less than before, however often the engine has died."""
        return self._earlier + self._now

    def begin(self) -> None:
        """The engine begins a life, and counts from zero again."""
        self._earlier = self.total
        self._now = DraftCounts()
        self._looks = deque([DraftCounts()])

    def take(self, counts: DraftCounts | None) -> bool:
        """Take notice of what an engine has counted in this life; True if that is news."""
        if counts is None or counts == self._now:
            return False
        self._now = counts
        self._looks.append(counts)
        while len(self._looks) > 2 and (counts - self._looks[1]).guessed >= WINDOW_TOKENS:
            self._looks.popleft()
        return True

    def find_recent(self) -> DraftCounts | None:
        """The latest guesses of this life, `WINDOW_TOKENS` of them and what one more look adds; None before that."""
        recent = self._now - self._looks[0]
        return recent if recent.guessed >= WINDOW_TOKENS else None

    def judge(self, least: float | None) -> str | None:
        """Say once, in words for people, that less than the fraction `least` of the latest guesses was right."""
        recent = self.find_recent()
        if least is None or recent is None or self._is_judged or recent.accepted >= least * recent.guessed:
            return None
        self._is_judged = True
        share = f"{recent.accepted / recent.guessed:.1%} of the last {recent.guessed:,} guessed tokens were right"
        return f"{share}, and min_acceptance is {least:.1%}"

    def inherit(self, counts: DraftCounts) -> None:
        """Count on from what another engine has counted, whose place this one takes."""
        self._earlier += counts


def sum_drafts(statuses: Iterable[EngineStatus]) -> dict[tuple[str, str], DraftCounts]:
    """The counts of each model and version that has guessed."""
    found: dict[tuple[str, str], DraftCounts] = {}
    for status in statuses:
        if status.drafts is not None:
            target = (status.model, status.version)
            found[target] = found.get(target, DraftCounts()) + status.drafts
    return found
