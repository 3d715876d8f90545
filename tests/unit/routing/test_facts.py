import dataclasses

import pytest

from gateway.routing.facts import Facts


def test_facts_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Facts().turn = 1  # type: ignore[misc]
