from typing import get_args

import pytest

from gateway.fleet.replica import Replica
from gateway.routing.facts import Facts
from gateway.routing.policy import POLICIES, PolicyName
from gateway.settings import VersionSettings

REPLICAS = tuple(Replica(f"v1-{n}", "shapes", "v1", f"unix:///{n}", "shapes") for n in range(3))


def test_settings_offer_every_policy() -> None:
    assert (
        set(get_args(VersionSettings.model_fields["routing"].annotation)) == set(POLICIES) == set(get_args(PolicyName))
    )


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_takes_one_of_those_given(name: PolicyName) -> None:
    for count in (1, 2, 3):
        for step in range(20):
            facts = Facts(step / 20, step, b"session %d" % step, b"prefix %d" % step)
            assert POLICIES[name](REPLICAS[:count], {"unix:///0": step}, facts) in REPLICAS[:count]
