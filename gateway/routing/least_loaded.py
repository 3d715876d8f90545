"""Least loaded: the replica with the fewest requests running."""

from collections.abc import Mapping, Sequence

from gateway.fleet.replica import Replica


def choose(replicas: Sequence[Replica], running: Mapping[str, int]) -> Replica:
    """Pick from one or more `replicas`; `running` counts requests by address, the first of equals wins."""
    if len(replicas) == 1:
        return replicas[0]
    return min(replicas, key=lambda replica: running.get(replica.address, 0))
