"""How a model's users are spread over its versions: parts of a line, of which other shares move as little as can be.

A line that is divided anew for each split would move users between versions whose share has not changed, as soon as
there are three of them: no rule without a memory can do better. So the line itself is what is remembered.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

LENGTH = 1 << 32
"""Of the line. Whole numbers: every gateway comes to the same bounds, whatever it has done before."""

_Part = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Allocation:
    """The line from 0 to LENGTH in order: where each part ends, and which version it belongs to."""

    ends: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def divide(cls, shares: Mapping[str, float]) -> "Allocation":
        """Spread users for the first time, in the order of the versions. `shares` are fractions that add up to 1."""
        return _join((size, name) for name, size in _to_sizes(shares).items())

    def move(self, shares: Mapping[str, float]) -> "Allocation":
        """Spread users by other shares: each one stays whose version does not lose any, and nobody moves in vain.

        Parts are cut where they touch one of the version that gains, so that shares that go up and down again end as
        they were.
        """
        if not self.names:
            return Allocation.divide(shares)
        wanted = _to_sizes(shares)
        parts, sizes = self._list_parts(), self.measure()
        change = {name: wanted.get(name, 0) - sizes.get(name, 0) for name in {**wanted, **sizes}}
        for gainer in [name for name, size in change.items() if size > 0]:
            for loser in [name for name, size in change.items() if size < 0]:
                amount = min(change[gainer], -change[loser])
                parts = _give(parts, loser, gainer, amount)
                change[gainer] -= amount
                change[loser] += amount
        return _join(parts)

    def measure(self) -> dict[str, int]:
        """How much of the line each version has."""
        sizes: dict[str, int] = {}
        for size, name in self._list_parts():
            sizes[name] = sizes.get(name, 0) + size
        return sizes

    def _list_parts(self) -> list[_Part]:
        return [(end - start, name) for (start, end), name in zip(pairwise((0, *self.ends)), self.names, strict=True)]


def _to_sizes(shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that add up to the line's length; what rounding leaves over goes where most was cut off."""
    exact = {name: share * LENGTH for name, share in shares.items() if share > 0}
    sizes = {name: int(size) for name, size in exact.items()}
    left = LENGTH - sum(sizes.values())
    for name in sorted(exact, key=lambda name: sizes[name] - exact[name])[: max(0, left)]:
        sizes[name] += 1
    largest = max(sizes, key=lambda name: sizes[name])
    sizes[largest] += LENGTH - sum(sizes.values())  # shares that add up to 1 but for their last digits
    return sizes


def _give(parts: list[_Part], loser: str, gainer: str, amount: int) -> list[_Part]:
    """Let `gainer` have so much of what `loser` has."""
    while amount:
        place, is_end = _find_cut(parts, loser, gainer)
        size = parts[place][0]
        taken = min(size, amount)
        cut = [(size - taken, loser), (taken, gainer)]
        parts = [*parts[:place], *(cut if is_end else reversed(cut)), *parts[place + 1 :]]
        parts = [part for part in parts if part[0]]
        amount -= taken
    return parts


def _find_cut(parts: list[_Part], loser: str, gainer: str) -> tuple[int, bool]:
    """Which of the loser's parts is cut, and whether at its end: one beside the gainer's, or else the last."""
    names = [name for _, name in parts]
    for place, (before, after) in enumerate(pairwise(names)):
        if (before, after) == (loser, gainer):
            return place, True
        if (before, after) == (gainer, loser):
            return place + 1, False
    return max(place for place, name in enumerate(names) if name == loser), True


def _join(parts: Iterable[_Part]) -> Allocation:
    ends: list[int] = []
    names: list[str] = []
    end = 0
    for size, name in parts:
        end += size
        if names and names[-1] == name:
            ends[-1] = end
        elif size:
            ends.append(end)
            names.append(name)
    return Allocation(tuple(ends), tuple(names))
