from typing import Any

import pytest

from gateway.control.changes import ModelChanges
from gateway.control.serving import Serving
from gateway.errors import BadRequest, Conflict, UnknownModel
from gateway.settings import ModelSettings, ShadowSettings, VersionSettings


def version(name: str, **fields: Any) -> VersionSettings:
    return VersionSettings.model_validate({"name": name, "engine": "simulated", **fields})


def serving(**split: float) -> Serving:
    versions = [{"name": name, "engine": "simulated"} for name in split]
    return Serving((ModelSettings.model_validate({"name": "m", "versions": versions, "split": split}),))


def test_a_version_more_gets_no_traffic_yet() -> None:
    added = serving(v1=1).add("m", version("v2"))
    assert added.list_versions() == {("m", "v1"), ("m", "v2")}
    assert added.find_model("m").split == {"v1": 1.0, "v2": 0.0}


def test_a_successor_gets_the_share_of_the_one_it_replaces() -> None:
    after = serving(v1=3, other=1).add("m", version("v2"), replaces="v1").hand_over("m", "v2")
    assert after.find_model("m").split == {"other": 0.25, "v2": 0.75}
    assert (after.list_versions(), after.successors) == ({("m", "other"), ("m", "v2")}, {})


def test_a_successor_that_was_given_up_replaces_nobody() -> None:
    after = serving(v1=1).add("m", version("v2"), replaces="v1").give_up("m", "v2")
    assert (after.list_versions(), after.successors) == ({("m", "v1"), ("m", "v2")}, {})


def test_one_version_has_one_successor() -> None:
    first = serving(v1=1).add("m", version("v2"), replaces="v1")
    with pytest.raises(Conflict, match="m:v2 is to take that place already"):
        first.add("m", version("v3"), replaces="v1")
    chain = first.add("m", version("v3"), replaces="v2")
    assert chain.hand_over("m", "v2").successors == {("m", "v3"): "v2"}
    overtaken = chain.hand_over("m", "v3")
    assert (overtaken.list_versions(), overtaken.successors) == ({("m", "v1"), ("m", "v3")}, {("m", "v3"): "v1"})
    assert overtaken.hand_over("m", "v3").find_model("m").split == {"v3": 1.0}


@pytest.mark.parametrize("gone", ["v1", "v2"])
def test_a_version_that_is_removed_takes_no_place_and_leaves_none(gone: str) -> None:
    waiting = serving(v1=1, v0=1).add("m", version("v2"), replaces="v1").set_split("m", {"v0": 1})
    assert waiting.remove("m", gone).successors == {}


def test_a_version_with_traffic_stays() -> None:
    both = serving(v1=1, v2=3)
    with pytest.raises(Conflict, match=r"m:v2 has 0\.75 of the traffic"):
        both.remove("m", "v2")
    assert both.set_split("m", {"v1": 1}).remove("m", "v2").list_versions() == {("m", "v1")}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({}, "Name the versions of m"),
        ({"v9": 1}, "no version is called v9"),
        ({"v1": -1}, "numbers from 0 up"),
        ({"v1": float("nan")}, "numbers from 0 up"),
        ({"v1": 0}, "above 0"),
    ],
)
def test_shares_that_mean_nothing_are_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        serving(v1=1, v2=1).set_split("m", weights)


def test_what_is_not_served_cannot_be_changed() -> None:
    one = serving(v1=1)
    for act in (
        lambda: one.add("n", version("v1")), lambda: one.add("m", version("v2"), replaces="v9"),
        lambda: one.remove("m", "v9"), lambda: one.set_split("n", {"v1": 1}),
    ):  # fmt: skip
        with pytest.raises(UnknownModel):
            act()
    with pytest.raises(Conflict, match="m:v1 is here already"):
        one.add("m", version("v1"))


def test_it_is_the_same_in_another_process() -> None:
    one = serving(v1=1).add("m", version("v2", defaults={"top_k": 5}, env={"A": "b"}), replaces="v1")
    assert Serving.load(one.dump()) == one


def test_while_a_rollout_moves_traffic_nobody_else_does() -> None:
    moving = serving(v1=1, v2=1).remember({"m": ModelChanges(rollout="r7")})
    for act in (
        lambda: moving.set_split("m", {"v1": 1}),
        lambda: moving.remove("m", "v2"),
        lambda: moving.add("m", version("v3"), replaces="v1"),
        lambda: moving.forget(["m"]),
    ):
        with pytest.raises(Conflict, match="The rollout r7 moves the traffic of m"):
            act()
    assert ("m", "v3") in moving.add("m", version("v3")).list_versions(), "one more is no harm"


def test_traffic_is_moved_to_somebody_who_is_there() -> None:
    assert serving(v1=1, v2=1).move("m", {"v1": 1, "gone": 3}, "r1").find_model("m").split == {"v1": 1, "v2": 0}
    with pytest.raises(Conflict, match="not served any more"):
        serving(v1=1, v2=1).move("m", {"gone": 1}, "r1")


def test_what_was_changed_at_run_time_can_be_told_and_forgotten() -> None:
    changed = serving(v1=1, v2=1).set_split("m", {"v1": 1}).remove("m", "v2").add("m", version("v3"))
    changed = changed.set_adapter("m", "v1", "a", "/a")
    assert changed.list_touched() == ["m: split", "m: adapters", "m: version v3, loaded", "m: version v2, unloaded"]
    assert changed.forget(["m"]).list_touched() == []
    assert changed.forget(["m"]).models == serving(v1=1, v2=1).models


def test_a_shadow_is_set_and_ended_at_run_time() -> None:
    shadowed = serving(v1=1, v2=0).set_shadow("m", ShadowSettings(version="v2", percent=5, keep_texts=True))
    shadow = shadowed.shadows["m"]
    assert (shadow.version, shadow.percent, shadow.keep_texts) == ("v2", 5, True)
    assert shadowed.list_touched() == ["m: shadow"]
    assert shadowed.set_shadow("m", None).shadows == {}
    assert shadowed.set_shadow("m", ShadowSettings(version="v2", percent=0)).shadows == {}
    assert shadowed.remove("m", "v2").shadows == {}, "it goes with its version"
    with pytest.raises(BadRequest, match="has no version 'v9', but v1, v2"):
        shadowed.set_shadow("m", ShadowSettings(version="v9", percent=5))
    with pytest.raises(UnknownModel):
        shadowed.set_shadow("n", None)


def test_a_shadow_is_compared_anew_once_others_answer() -> None:
    asked = ShadowSettings(version="v3", percent=5)

    def stage(percent: float = 5, **split: float) -> int:
        known = serving(**split, v3=0).set_shadow("m", asked.model_copy(update={"percent": percent}))
        return known.settle(1.0).shadows["m"].stage

    assert stage(v1=1, v2=1) == stage(v1=1, v2=3) == stage(50, v1=1, v2=3)
    assert len({stage(v1=1, v2=1), stage(v1=1, v2=0), stage(v1=0, v2=1)}) == 3


def test_adapters_are_remembered_and_so_is_how_often() -> None:
    once = serving(v1=1).set_adapter("m", "v1", "a", "/a")
    assert once.find_version("m", "v1").adapters == {"a": "/a"}
    again = once.set_adapter("m", "v1", "a", "/a")
    assert again != once, "another one may lie there by now"
    assert again.set_adapter("m", "v1", "a", None).find_version("m", "v1").adapters == {}
    with pytest.raises(UnknownModel):
        once.set_adapter("m", "v9", "a", "/a")


def test_users_and_stages_are_settled() -> None:
    one = serving(v1=3, v2=1).settle(5.0)
    assert one.read("m").stages[-1].number == one.stages["m"] > 0
    assert one.allocations["m"].measure() == {"v1": 3 * 2**30, "v2": 2**30}
    assert one.settle(6.0) == one
