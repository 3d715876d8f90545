"""The weighted split: a sticky key always lands on the same version while the weights stand."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

_POINTS = 1 << 64


@dataclass(frozen=True, slots=True)
class Split:
    """Weights of a model's versions as upper bounds in [0, 1], in the order of the version names given.

    `salt` has 64 bytes at most.
    """

    salt: bytes
    bounds: tuple[tuple[float, str], ...]

    @classmethod
    def from_weights(cls, salt: str, weights: Mapping[str, float]) -> "Split":
        """Weights are fractions that add up to 1; a version with weight 0 is never chosen."""
        used = [(name, weight) for name, weight in weights.items() if weight > 0]
        sums = accumulate(weight for _, weight in used)
        return cls(salt.encode()[:64], tuple((bound, name) for bound, (name, _) in zip(sums, used, strict=True)))

    def choose(self, sticky_key: bytes) -> str:
        """The version that `sticky_key` belongs to: a salted hash gives its point in [0, 1)."""
        digest = hashlib.blake2b(sticky_key, digest_size=8, key=self.salt).digest()
        point = int.from_bytes(digest, "big") / _POINTS
        for bound, name in self.bounds:
            if point < bound:
                return name
        return self.bounds[-1][1]
