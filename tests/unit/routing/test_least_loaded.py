import random
from collections import Counter

import pytest

from gateway.fleet.replica import Replica
from gateway.routing.facts import Facts
from gateway.routing.least_loaded import choose

ONE, TWO, THREE = (Replica(f"v1-{n}", "shapes", "v1", f"unix:///{n}", "shapes") for n in range(3))


@pytest.mark.parametrize("luck", [0.0, 0.3, 0.49, 0.5, 0.99])
def test_of_two_the_fewer_running_wins_whatever_the_lot(luck: float) -> None:
    assert choose((ONE, TWO), {ONE.address: 2, TWO.address: 1}, Facts(luck=luck)) is TWO


def test_an_address_nobody_counted_is_free() -> None:
    assert choose((ONE, TWO), {ONE.address: 1}, Facts(luck=0.1)) is TWO


def test_the_busiest_of_three_is_never_taken() -> None:
    running = {ONE.address: 3, TWO.address: 1, THREE.address: 2}
    taken = {choose((ONE, TWO, THREE), running, Facts(luck=step / 1000)).name for step in range(1000)}
    assert taken == {"v1-1", "v1-2"}


def test_equals_are_taken_equally_often() -> None:
    rng = random.Random(1)
    taken = Counter(choose((ONE, TWO, THREE), {}, Facts(luck=rng.random())).name for _ in range(3000))
    assert all(900 < count < 1100 for count in taken.values())


def test_every_pair_is_drawn() -> None:
    replicas = tuple(Replica(f"v1-{n}", "shapes", "v1", f"unix:///{n}", "shapes") for n in range(5))
    for free in replicas:
        running = {replica.address: 1 for replica in replicas if replica is not free}
        taken = [choose(replicas, running, Facts(luck=step / 2000)) for step in range(2000)]
        assert 0.35 < sum(replica is free for replica in taken) / 2000 < 0.45  # in 2 of 5 draws it is one of the two
