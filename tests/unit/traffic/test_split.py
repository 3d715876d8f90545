from collections import Counter

import msgspec
import pytest

from gateway.traffic.allocation import Allocation
from gateway.traffic.split import Split


def split(model: str = "shapes", out: tuple[str, ...] = (), **shares: float) -> Split:
    return Split.over(model, Allocation.divide(shares), out)


def choose(of: Split, number: int) -> str:
    return of.choose(f"user={number}".encode()).version


def measure(of: Split, count: int = 20_000) -> dict[str, float]:
    counts = Counter(choose(of, number) for number in range(count))
    return {name: counts[name] / count for name in counts}


def test_a_key_always_gets_the_same_version_and_unit() -> None:
    assert len({split(v1=0.5, v2=0.5).choose(b"user=ann") for _ in range(100)}) == 1


def test_choices_do_not_change_with_releases() -> None:
    """Users keep their versions over an upgrade: these were written down once."""
    found = split(v1=0.9, v2=0.1)
    assert [number for number in range(40) if choose(found, number) == "v2"] == [4, 32, 35]
    assert found.choose(b"user=anna").unit == 0x2E797EF62768F60C


@pytest.mark.parametrize("shares", [{"v1": 0.9, "v2": 0.1}, {"a": 0.2, "b": 0.3, "c": 0.5}, {"v1": 0.0, "v2": 1.0}])
def test_shares_follow_the_weights(shares: dict[str, float]) -> None:
    wanted = {name: share for name, share in shares.items() if share}
    assert measure(split(**shares)) == pytest.approx(wanted, abs=0.01)


def test_models_split_independently() -> None:
    one, other = split("shapes", v1=0.5, v2=0.5), split("letters", v1=0.5, v2=0.5)
    agree = sum(choose(one, number) == choose(other, number) for number in range(2000)) / 2000
    assert agree == pytest.approx(0.5, abs=0.05)


def test_users_differ_in_their_units() -> None:
    of = split(v1=1.0)
    assert len({of.choose(f"user={number}".encode()).unit for number in range(10_000)}) == 10_000


def test_others_stand_in_for_a_version_that_is_out_by_their_shares_and_keep_their_own_users() -> None:
    whole, without = split(v1=0.4, v2=0.4, v3=0.2), split(v1=0.4, v2=0.4, v3=0.2, out=("v1",))
    assert measure(without) == pytest.approx({"v2": 2 / 3, "v3": 1 / 3}, abs=0.01)
    for number in range(2000):
        own, chosen = choose(whole, number), without.choose(f"user={number}".encode())
        assert chosen.is_stand_in == (own == "v1")
        assert chosen.is_stand_in or chosen.version == own


def test_if_all_are_out_nobody_stands_in() -> None:
    assert split(v1=0.5, v2=0.5, out=("v1", "v2")) == split(v1=0.5, v2=0.5)
    assert split(v1=1.0, v2=0.0, out=("v1",)) == split(v1=1.0, v2=0.0), "a version without users is no help"


def test_it_is_the_same_in_another_process() -> None:
    one = split(v1=0.4, v2=0.6, out=("v1",))
    one.choose(b"user=ann")  # what it remembers by then does not travel
    data = msgspec.msgpack.encode(one)
    assert msgspec.msgpack.decode(data, type=Split) == one
    assert b"stand_ins" not in data


def test_a_long_name_is_a_salt_too() -> None:
    assert split("m" * 200, v1=1.0).choose(b"x").version == "v1"
