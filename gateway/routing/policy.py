"""The policies by name, and the facts that they choose by."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from gateway.fleet.replica import Replica
from gateway.routing import least_loaded, prefix_affinity, round_robin, session_affinity
from gateway.routing.facts import Facts

Policy = Callable[[Sequence[Replica], Mapping[str, int], Facts], Replica]
"""One or more replicas, the requests running by address, and the facts of this request; gives one of the replicas."""

PolicyName = Literal["least_loaded", "prefix_affinity", "session_affinity", "round_robin"]

POLICIES: Mapping[str, Policy] = {
    "least_loaded": least_loaded.choose,
    "prefix_affinity": prefix_affinity.choose,
    "session_affinity": session_affinity.choose,
    "round_robin": round_robin.choose,
}
