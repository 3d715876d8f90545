from gateway.fleet.replica import Replica
from gateway.routing.facts import Facts
from gateway.routing.prefix_affinity import choose

REPLICAS = tuple(Replica(f"v1-{n}", "shapes", "v1", f"unix:///{n}", "shapes") for n in range(3))


def test_a_conversation_keeps_its_replica_whoever_asks() -> None:
    for number in range(50):
        prefix = b"conversation %d" % number
        taken = {choose(REPLICAS, {}, Facts(luck / 10, luck, b"user %d" % luck, prefix)).name for luck in range(10)}
        assert len(taken) == 1


def test_without_a_beginning_the_load_decides() -> None:
    running = {"unix:///0": 5, "unix:///1": 5}
    assert choose(REPLICAS[1:], running, Facts(luck=0.2)) is REPLICAS[2]
