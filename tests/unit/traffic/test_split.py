from collections import Counter

import pytest

from gateway.traffic.split import Split


def shares(split: Split, count: int = 20_000) -> dict[str, float]:
    counts = Counter(split.choose(f"user={number}".encode()) for number in range(count))
    return {name: counts[name] / count for name in counts}


def test_a_key_always_gets_the_same_version() -> None:
    split = Split.from_weights("shapes", {"v1": 0.5, "v2": 0.5})
    assert len({split.choose(b"user=ann") for _ in range(100)}) == 1


@pytest.mark.parametrize("weights", [{"v1": 0.9, "v2": 0.1}, {"a": 0.2, "b": 0.3, "c": 0.5}])
def test_shares_follow_the_weights(weights: dict[str, float]) -> None:
    found = shares(Split.from_weights("shapes", weights))
    assert found == pytest.approx(weights, abs=0.01)


def test_weight_zero_gets_nothing() -> None:
    assert shares(Split.from_weights("shapes", {"v1": 0.0, "v2": 1.0}), 1000) == {"v2": 1.0}


def test_models_split_independently() -> None:
    weights = {"v1": 0.5, "v2": 0.5}
    one, other = Split.from_weights("shapes", weights), Split.from_weights("letters", weights)
    keys = [f"user={number}".encode() for number in range(2000)]
    agree = sum(one.choose(key) == other.choose(key) for key in keys) / len(keys)
    assert agree == pytest.approx(0.5, abs=0.05)


def test_rounding_of_the_weights_leaves_no_gap_at_the_end() -> None:
    split = Split(b"s", ((0.1, "v1"), (0.3, "v2")))
    assert {split.choose(f"{number}".encode()) for number in range(100)} == {"v1", "v2"}
