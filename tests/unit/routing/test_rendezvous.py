from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway.fleet.replica import Replica
from gateway.routing.rendezvous import choose_for_key

REPLICAS = tuple(Replica(f"v1-{n}", "shapes", "v1", f"unix:///{n}", "shapes") for n in range(4))
KEYS = [f"key {n}".encode() for n in range(2000)]


def test_keys_are_spread_evenly_and_stay() -> None:
    chosen = {key: choose_for_key(REPLICAS, {}, key) for key in KEYS}
    assert all(430 < count < 570 for count in Counter(replica.name for replica in chosen.values()).values())
    assert all(choose_for_key(tuple(reversed(REPLICAS)), {}, key) is replica for key, replica in chosen.items())


def test_a_replica_that_goes_takes_only_its_own_keys_along() -> None:
    for key in KEYS:
        before, after = choose_for_key(REPLICAS, {}, key), choose_for_key(REPLICAS[:-1], {}, key)
        assert after is before or before is REPLICAS[-1]


def test_a_busy_replica_hands_its_keys_over() -> None:
    key = next(key for key in KEYS if choose_for_key(REPLICAS, {}, key) is REPLICAS[0])
    busy = {"unix:///0": 10, "unix:///1": 2, "unix:///2": 2, "unix:///3": 2}
    assert choose_for_key(REPLICAS, busy, key) is not REPLICAS[0]
    even = {replica.address: 4 for replica in REPLICAS}
    assert choose_for_key(REPLICAS, even, key) is REPLICAS[0]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.binary(max_size=100))
def test_there_is_always_one_and_it_is_within_the_bound(loads: list[int], key: bytes) -> None:
    replicas = tuple(Replica(f"v1-{n}", "m", "v1", f"unix:///{n}", "m") for n in range(len(loads)))
    running = {replica.address: load for replica, load in zip(replicas, loads, strict=True)}
    chosen = choose_for_key(replicas, running, key)
    assert len(loads) == 1 or running[chosen.address] < 1.5 * (sum(loads) + 1) / len(loads) + 1
