"""Least loaded of two drawn by lot.

Every relay knows its own requests only. Were each to take the least loaded of all, all would take the same one; the
better of two random ones stays within a constant of the best (M. Mitzenmacher, "The Power of Two Choices in Randomized
Load Balancing", IEEE TPDS 12(10), 2001).
"""

from collections.abc import Mapping, Sequence

from gateway.fleet.replica import Replica
from gateway.routing.facts import Facts


def choose(replicas: Sequence[Replica], running: Mapping[str, int], facts: Facts) -> Replica:
    """The one of two that has fewer requests running; of equals the one drawn first."""
    count = len(replicas)
    if count == 1:
        return replicas[0]
    place = facts.luck * count
    first = int(place)
    second = (first + 1 + int((place - first) * (count - 1))) % count
    one, other = replicas[first], replicas[second]
    return other if running.get(other.address, 0) < running.get(one.address, 0) else one
