from gateway.fleet.replica import Replica
from gateway.routing.facts import Facts
from gateway.routing.session_affinity import choose

REPLICAS = tuple(Replica(f"v1-{n}", "shapes", "v1", f"unix:///{n}", "shapes") for n in range(3))


def test_a_client_keeps_its_replica_whatever_it_asks() -> None:
    taken = [
        {choose(REPLICAS, {}, Facts(n / 10, n, b"user %d" % user, b"%d" % n)).name for n in range(10)}
        for user in range(50)
    ]
    assert all(len(names) == 1 for names in taken)
    assert set.union(*taken) == {"v1-0", "v1-1", "v1-2"}
