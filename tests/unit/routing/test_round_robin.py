from gateway.fleet.replica import Replica
from gateway.routing.facts import Facts
from gateway.routing.round_robin import choose

REPLICAS = tuple(Replica(f"v1-{n}", "shapes", "v1", f"unix:///{n}", "shapes") for n in range(3))


def test_each_has_its_turn_however_busy() -> None:
    names = [choose(REPLICAS, {"unix:///1": 99}, Facts(turn=turn)).name for turn in range(6)]
    assert names == ["v1-0", "v1-1", "v1-2"] * 2
