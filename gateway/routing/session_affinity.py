"""Session affinity: a client, as its sticky key tells it apart, keeps to one replica.

Bounded by load: see `rendezvous`.
"""

from collections.abc import Mapping, Sequence

from gateway.fleet.replica import Replica
from gateway.routing.facts import Facts
from gateway.routing.rendezvous import choose_for_key


def choose(replicas: Sequence[Replica], running: Mapping[str, int], facts: Facts) -> Replica:
    """The client's own replica."""
    return choose_for_key(replicas, running, facts.session)
