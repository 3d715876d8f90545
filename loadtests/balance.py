"""How evenly replicas are loaded when every relay knows only its own requests: the real policies, in virtual time.

`python -m loadtests.balance [--replicas 8] [--load 32] [--requests 200000] [--seed 1]`: requests arrive at random at
one of N relays, which asks the policy with the counts of its own requests, and stay at their replica for a random time.
At each arrival the replicas are looked at: how many requests the busiest has, measured by the mean over all.
"""

import argparse
import heapq
import random
import statistics

from gateway.fleet.replica import Replica
from gateway.routing.facts import Facts
from gateway.routing.policy import POLICIES


def simulate(policy: str, relays: int, replicas: int, load: float, requests: int, seed: int) -> tuple[float, float]:
    """The busiest replica by the mean: median and 99th percentile over all arrivals. `load` is that mean."""
    rng = random.Random(seed)
    places = [Replica(f"r{number}", "m", "v", f"http://e{number}", "m") for number in range(replicas)]
    known: list[dict[str, int]] = [{} for _ in range(relays)]
    turns = [0] * relays
    total = dict.fromkeys((place.address for place in places), 0)
    leaving: list[tuple[float, int, str]] = []
    now, seen = 0.0, []
    for number in range(requests):
        now += rng.expovariate(load * replicas)  # requests stay for 1 on average
        while leaving and leaving[0][0] <= now:
            _, relay, address = heapq.heappop(leaving)
            known[relay][address] -= 1
            total[address] -= 1
        relay = rng.randrange(relays)
        turns[relay] += 1
        address = POLICIES[policy](places, known[relay], Facts(luck=rng.random(), turn=turns[relay])).address
        known[relay][address] = known[relay].get(address, 0) + 1
        total[address] += 1
        heapq.heappush(leaving, (now + rng.expovariate(1), relay, address))
        if number > requests // 10:
            seen.append(max(total.values()) / (sum(total.values()) / replicas))
    return statistics.median(seen), statistics.quantiles(seen, n=100)[98]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--load", type=float, default=32, help="mean number of requests at a replica")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"busiest of {given.replicas} replicas by the mean of {given.load:g} requests")
    print("| policy | relays | median | p99 |\n|---|---|---|---|")
    for policy, counts in (("least_loaded", (1, 2, 4, 16)), ("round_robin", (1, 4, 16))):
        for relays in counts:
            median, high = simulate(policy, relays, given.replicas, given.load, given.requests, given.seed)
            print(f"| {policy} | {relays} | {median:.2f} | {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
