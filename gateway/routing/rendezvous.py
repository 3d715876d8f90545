"""Rendezvous hashing with bounded loads: a key keeps to its replica while that one is not much busier than the rest.

Every relay comes to the same answer without asking anybody, and when a replica comes or goes only its own keys move
(D. Thaler and C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 6(1), 1998). The bound is
that of V. Mirrokni, M. Thorup and M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016, arXiv:1608.01350.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence

from gateway.fleet.replica import Replica

_SLACK = 1.5
"""A replica takes at most this many times the mean load before its keys go to their next choice."""


def choose_for_key(replicas: Sequence[Replica], running: Mapping[str, int], key: bytes) -> Replica:
    """The first replica in the key's own order that has room; among them there always is one."""
    if len(replicas) == 1:
        return replicas[0]
    loads = [running.get(replica.address, 0) for replica in replicas]
    room = math.ceil(_SLACK * (sum(loads) + 1) / len(replicas))
    free = [replica for replica, load in zip(replicas, loads, strict=True) if load < room]
    return max(free, key=lambda replica: _score(replica, key))


def _score(replica: Replica, key: bytes) -> bytes:
    return hashlib.blake2b(key + b"\0" + replica.address.encode(), digest_size=8).digest()
