from dataclasses import FrozenInstanceError

import pytest

from gateway.fleet.replica import Replica


def test_replicas_are_values() -> None:
    replica = Replica("v1-0", "shapes", "v1", "unix:///x", "shapes")
    assert replica == Replica("v1-0", "shapes", "v1", "unix:///x", "shapes")
    with pytest.raises(FrozenInstanceError):
        replica.address = "unix:///y"  # type: ignore[misc]
