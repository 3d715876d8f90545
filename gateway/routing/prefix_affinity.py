"""Prefix affinity: a conversation goes where its beginning, pictures too, is in the engine's prefix cache.

A conversation is known by its beginning, which all its turns share. Bounded by load: see `rendezvous`.
"""

from collections.abc import Mapping, Sequence

from gateway.fleet.replica import Replica
from gateway.routing import least_loaded
from gateway.routing.facts import Facts
from gateway.routing.rendezvous import choose_for_key


def choose(replicas: Sequence[Replica], running: Mapping[str, int], facts: Facts) -> Replica:
    """The conversation's own replica; without a beginning to go by, the least loaded."""
    if not facts.prefix:
        return least_loaded.choose(replicas, running, facts)
    return choose_for_key(replicas, running, facts.prefix)
