from hypothesis import given
from hypothesis import strategies as st

from gateway.engines.placement import Device, Evict, Need, Place, Refuse, Resident, Wait, place

CPU = (Device("cpu", 100),)
GPUS = (Device("0", 1000), Device("1", 1000))


def resident(name: str, amount: int, *devices: str, idle_s: float | None = None, can_sleep: bool = True) -> Resident:
    return Resident(("m", name), devices or ("cpu",), amount, can_sleep=can_sleep, idle_s=idle_s)


def test_what_fits_is_placed() -> None:
    assert place(Need(1, 40), CPU, [resident("a", 60)]) == Place(("cpu",))


def test_the_longest_idle_go_first_and_no_more_than_it_takes() -> None:
    there = [resident("a", 30, idle_s=5), resident("b", 30, idle_s=50), resident("c", 30, idle_s=9)]
    assert place(Need(1, 40), CPU, there) == Evict((("m", "b"),))
    assert place(Need(1, 70), CPU, there) == Evict((("m", "b"), ("m", "c")))


def test_a_version_sleeps_with_all_of_its_engines() -> None:
    there = [resident("a", 30, idle_s=5), resident("a", 30, idle_s=5), resident("b", 40, can_sleep=False)]
    assert place(Need(1, 60), CPU, there) == Evict((("m", "a"),))


def test_one_whose_leaving_was_not_needed_stays() -> None:
    there = [resident("a", 900, "0", idle_s=90), resident("b", 900, "1", idle_s=10), resident("c", 200, "0", idle_s=5)]
    assert place(Need(1, 850, pinned=("1",)), GPUS, there) == Evict((("m", "b"),))


def test_who_is_busy_is_waited_for_and_who_must_stay_is_not() -> None:
    assert place(Need(1, 50), CPU, [resident("a", 80)]) == Wait((("m", "a"),))
    assert place(Need(1, 50), CPU, [resident("a", 80, can_sleep=False)]) == Refuse(never=False, free=20)
    assert place(Need(1, 101), CPU, []) == Refuse(never=True, free=100)


def test_an_engine_over_several_devices_has_as_much_on_each() -> None:
    assert place(Need(2, 920), GPUS, []) == Place(("0", "1"))
    assert place(Need(2, 920), GPUS, [resident("a", 100, "1", can_sleep=False)]) == Refuse(never=False, free=900)
    assert place(Need(3, 10), GPUS, []) == Refuse(never=True, free=0)


def test_the_fullest_device_that_has_room_is_taken() -> None:
    assert place(Need(1, 300), GPUS, [resident("a", 500, "1")]) == Place(("1",))
    assert place(Need(1, 600), GPUS, [resident("a", 500, "1")]) == Place(("0",))
    assert place(Need(1, 300, pinned=("0",)), GPUS, [resident("a", 500, "1")]) == Place(("0",))


residents = st.lists(
    st.builds(
        lambda name, amount, device, can_sleep, idle_s: Resident(
            ("m", name), (device,), amount, can_sleep=can_sleep, idle_s=idle_s if can_sleep else None
        ),
        st.sampled_from("abcdef"), st.integers(0, 700), st.sampled_from("01"), st.booleans(),
        st.none() | st.floats(0, 1e6),
    ),
    max_size=6, unique_by=lambda one: one.version,
)  # fmt: skip
needs = st.builds(Need, st.integers(1, 2), st.integers(0, 1100))


@given(needs, residents)
def test_what_is_decided_comes_true(need: Need, there: list[Resident]) -> None:
    decision = place(need, GPUS, there)
    if isinstance(decision, Place):
        for device in decision.devices:
            assert sum(one.amount for one in there if device in one.devices) + need.amount <= 1000
    elif isinstance(decision, Evict):
        victims = [one for one in there if one.version in decision.versions]
        assert all(one.can_sleep and one.idle_s is not None for one in victims)
        assert isinstance(place(need, GPUS, [one for one in there if one not in victims]), Place)
        for spared in victims:
            rest = [one for one in there if one not in victims or one is spared]
            assert not isinstance(place(need, GPUS, rest), Place), "one too many"
    elif isinstance(decision, Wait):
        assert decision.versions
        assert all(one.can_sleep and one.idle_s is None for one in there if one.version in decision.versions)
    else:
        assert not isinstance(place(need, GPUS, [one for one in there if not one.can_sleep]), Place)
