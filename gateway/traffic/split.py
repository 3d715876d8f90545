"""The weighted split: a sticky key is one point on a model's line, and belongs to the version that has the point.

The same key has the same point in every relay of every gateway, before and after a restart, and nothing is looked up.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from gateway.traffic.allocation import LENGTH, Allocation

_POINT_BYTES = 4  # of LENGTH


class Choice(NamedTuple):
    """The version for a sticky key. `unit` stands for the key without telling it: 64 bits of its salted hash.

    A version that `is_stand_in` answers for the one whose user this is.
    """

    version: str
    unit: int
    is_stand_in: bool


@dataclass(frozen=True)
class Split:
    """The line of one model. Versions that are `out` cannot answer now: others stand in for them.

    `salt`, of 64 bytes at most, keeps the points of one model's users apart from another's.
    """

    salt: bytes
    allocation: Allocation
    out: frozenset[str] = frozenset()

    @classmethod
    def over(cls, model: str, allocation: Allocation, out: Iterable[str] = ()) -> "Split":
        """The split of a model. If all versions with users are out, nobody stands in for anybody."""
        users, gone = frozenset(allocation.names), frozenset(out)
        return cls(model.encode()[:64], allocation, frozenset() if users <= gone else users & gone)

    def choose(self, sticky_key: bytes) -> Choice:
        """The version that `sticky_key` belongs to, or its stand-in."""
        digest = hashlib.blake2b(sticky_key, digest_size=8, key=self.salt).digest()
        allocation = self.allocation
        version = allocation.names[bisect_right(allocation.ends, int.from_bytes(digest[:_POINT_BYTES], "big"))]
        if version in self.out:
            return Choice(self._find_stand_in(digest), int.from_bytes(digest, "big"), is_stand_in=True)
        return Choice(version, int.from_bytes(digest, "big"), is_stand_in=False)

    def find_own(self, sticky_key: bytes) -> str:
        """The version that `sticky_key` belongs to, whether it can answer or not."""
        return replace(self, out=frozenset()).choose(sticky_key).version

    def _find_stand_in(self, digest: bytes) -> str:
        """One of the others, by their shares; its own users stay where they are."""
        ends, names = self._stand_ins
        return names[bisect_right(ends, int.from_bytes(digest[_POINT_BYTES:], "big") * ends[-1] // LENGTH)]

    @cached_property
    def _stand_ins(self) -> tuple[list[int], list[str]]:
        sizes = {name: size for name, size in self.allocation.measure().items() if name not in self.out}
        return list(accumulate(sizes.values())), list(sizes)
