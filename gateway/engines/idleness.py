"""For how long nobody has asked a version for anything. Decides nothing, and knows the time from its callers only."""

from typing import NamedTuple

from gateway.fleet.replica import VersionKey


class _Seen(NamedTuple):
    ended: int
    busy_at_s: float


class Idleness:
    """When each version was last busy. Times are of one monotonic clock."""

    def __init__(self) -> None:
        self._seen: dict[VersionKey, _Seen] = {}

    def note(self, version: VersionKey, *, ended: int, running: int, now_s: float) -> float:
        """Take notice of its requests, all that have `ended` and those under way; returns how long it was idle."""
        seen = self._seen.get(version)
        if seen is None or running or ended != seen.ended:
            self._seen[version] = seen = _Seen(ended, now_s)
        return now_s - seen.busy_at_s

    def forget(self, version: VersionKey) -> None:
        """It begins anew: what is being woken has been asked for."""
        self._seen.pop(version, None)
