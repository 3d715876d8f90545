from typing import Any

import pytest

from gateway.control.changes import ModelChanges
from gateway.settings import ModelSettings, ShadowSettings, VersionSettings
from gateway.traffic.allocation import Allocation


def version(name: str, **fields: Any) -> VersionSettings:
    return VersionSettings.model_validate({"name": name, "engine": "simulated", **fields})


def model(*names: str, split: dict[str, float] | None = None, **fields: Any) -> ModelSettings:
    versions = [{"name": name, "engine": "simulated", "adapters": {"a": "/a"}} for name in names or ("v1", "v2")]
    return ModelSettings.model_validate({"name": "m", "versions": versions, "split": split or {}, **fields})


def test_untouched_the_file_counts() -> None:
    plain = model(split={"v1": 3, "v2": 1}, shadow={"version": "v2", "percent": 5})
    assert ModelChanges().apply(plain) == plain


def test_what_was_touched_wins_over_the_file_and_the_rest_does_not() -> None:
    changes = ModelChanges(split={"v1": 0.5, "v2": 0.5}, is_shadow_touched=True)
    after = changes.apply(model(split={"v1": 1}, shadow={"version": "v2", "percent": 5}, sticky_by=["user"]))
    assert (after.split, after.shadow, after.sticky_by) == ({"v1": 0.5, "v2": 0.5}, None, ("user",))
    shadowed = ModelChanges(shadow=ShadowSettings(version="v2", percent=1), is_shadow_touched=True)
    assert shadowed.apply(model()).shadow == ShadowSettings(version="v2", percent=1)


def test_versions_come_and_go() -> None:
    changes = ModelChanges(added=(version("v3", adapters={"b": "/b"}),), removed=("v1",))
    after = changes.apply(model(split={"v1": 1, "v2": 1}))
    assert [one.name for one in after.versions] == ["v2", "v3"]
    assert after.split == {"v2": 1.0, "v3": 0.0}


def test_a_version_that_was_added_wins_over_one_of_the_file() -> None:
    after = ModelChanges(added=(version("v2", replicas=3),)).apply(model())
    assert [(one.name, one.replicas) for one in after.versions] == [("v1", 1), ("v2", 3)]


@pytest.mark.parametrize("split", [{"gone": 1.0}, {"gone": 0.5, "v1": 0.0}, None])
def test_shares_of_versions_that_the_file_has_no_more_are_nobodys(split: dict[str, float] | None) -> None:
    assert ModelChanges(split=split).apply(model(split={"v2": 1})).split == {"v1": 0.0, "v2": 1.0}


def test_a_file_whose_versions_were_all_removed_is_served_again() -> None:
    assert [one.name for one in ModelChanges(removed=("v1", "v2")).apply(model()).versions] == ["v1", "v2"]


def test_adapters_come_and_go() -> None:
    changes = ModelChanges(adapters={"v1": {"b": "/b", "a": None}, "gone": {"a": None}})
    one, two = changes.apply(model()).versions
    assert (one.adapters, two.adapters) == ({"b": "/b"}, {"a": "/a"})


def test_users_are_remembered() -> None:
    settled = ModelChanges().settle(model(split={"v1": 8, "v2": 1, "v3": 1}, versions=three()), 5.0)
    later = settled.settle(model(split={"v1": 7, "v2": 1, "v3": 2}, versions=three()), 6.0)
    assert [name for _, name in later.allocation] == ["v1", "v3", "v2", "v3"], "nobody of v2 has moved"
    assert ModelChanges(allocation=later.allocation).allocate(
        model(split={"v1": 7, "v2": 1, "v3": 2}, versions=three())
    ) == Allocation(*zip(*later.allocation, strict=True))


def three() -> list[dict[str, Any]]:
    return [{"name": name, "engine": "simulated"} for name in ("v1", "v2", "v3")]


def stage(changes: ModelChanges | None = None, **fields: Any) -> int:
    return (changes or ModelChanges()).find_stage(model(**fields))


def test_a_stage_is_told_by_what_may_change_an_answer_or_who_gets_it() -> None:
    same = {stage(), stage(split={"v1": 1, "v2": 1}), stage(shadow={"version": "v2", "percent": 5})}
    assert len(same) == 1
    other = [
        stage(split={"v1": 1, "v2": 2}),
        stage(sticky_by=["user"]),
        stage(ModelChanges(rollout="r1")),
        stage(
            versions=[
                {"name": "v1", "engine": "simulated"},
                {"name": "v2", "engine": "simulated", "defaults": {"n": 1}},
            ]
        ),
    ]
    assert len({*same, *other}) == 5


def test_what_makes_no_difference_to_answers_makes_no_stage() -> None:
    versions = [{"name": "v1", "engine": "simulated"}, {"name": "v2", "engine": "simulated"}]
    more = [versions[0] | {"replicas": 4, "sleep_after_s": 60}, versions[1], {"name": "idle", "engine": "simulated"}]
    split = {"v1": 1, "v2": 1}
    assert stage(versions=versions, split=split) == stage(versions=more, split=split)


def test_one_version_alone_is_compared_with_nothing() -> None:
    assert ModelChanges().find_stage(model("v1")) == 0


def test_stages_are_noted_once_each_and_not_for_ever() -> None:
    changes = ModelChanges().settle(model(), 1.0).settle(model(), 2.0)
    [first] = changes.stages
    assert (first.number, first.began, first.shares) == (stage(), 1.0, {"v1": 0.5, "v2": 0.5})
    changes = changes.settle(model(split={"v1": 1, "v2": 3}), 3.0).settle(model(), 4.0)
    assert [one.began for one in changes.stages] == [3.0, 1.0], "one that comes again is not there twice"
    for share in range(30):
        changes = changes.settle(model(split={"v1": 1, "v2": share}), float(share))
    assert len(changes.stages) == 20


def test_only_who_has_which_version_survives_a_reset() -> None:
    changes = ModelChanges(split={"v2": 1.0}, added=(version("v3"),), removed=("v1",)).settle(model(), 1.0)
    after = changes.forget()
    assert after.apply(model()) == model()
    assert (after.allocation, after.stages) == (changes.allocation, changes.stages)


def test_it_is_the_same_after_a_restart() -> None:
    changes = ModelChanges(
        split={"v1": 1.0}, added=(version("v3", env={"A": "b"}),), adapters={"v1": {"a": None}}, successors={"v3": "v1"}
    ).settle(model(), 1.0)
    assert ModelChanges.model_validate_json(changes.model_dump_json()) == changes
