from gateway.fleet.replica import Replica
from gateway.routing.least_loaded import choose

ONE, TWO, THREE = (Replica(f"v1-{n}", "shapes", "v1", f"unix:///{n}", "shapes") for n in range(3))


def test_the_fewest_running_wins() -> None:
    assert choose((ONE, TWO, THREE), {ONE.address: 2, TWO.address: 1, THREE.address: 3}) is TWO


def test_an_address_nobody_counted_is_free() -> None:
    assert choose((ONE, TWO), {ONE.address: 1}) is TWO


def test_the_first_of_equals_wins() -> None:
    assert choose((ONE, TWO), {}) is ONE
