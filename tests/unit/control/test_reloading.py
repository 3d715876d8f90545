from typing import Any

import pytest

from gateway.control.changes import ModelChanges
from gateway.control.reloading import find_conflicts, find_ignored, find_taken, plan
from gateway.control.serving import Serving
from gateway.control.standing import Standing
from gateway.settings import AdminSettings, AuthSettings, ModelSettings, ServerSettings, Settings


def model(*versions: str, name: str = "m", split: dict[str, float] | None = None, **fields: Any) -> ModelSettings:
    known = [{"name": version, "engine": "simulated"} | fields for version in versions]
    return ModelSettings.model_validate({"name": name, "versions": known, "split": split or {}})


def test_a_version_that_is_new_is_awaited_and_old_shares_stand_meanwhile() -> None:
    before, after = (model("v1", "v2", split={"v1": 3, "v2": 1}),), (model("v2", "v3", split={"v2": 1, "v3": 1}),)
    found = plan(before, after, Serving(before))
    assert found.awaited == {"m:v3"}
    [blended] = found.blended
    assert ([version.name for version in blended.versions], blended.split) == (
        ["v2", "v3", "v1"],
        {"v2": 0.25, "v3": 0.0, "v1": 0.75},
    )
    assert (found.before, found.after) == (before, after)
    assert not found.is_ready(Standing(["m:v3"]))
    assert found.is_ready(Standing(["m:v3"], ["m:v3"]))
    assert found.find_failed(Standing(["m:v3"], [], ["m:v3", "m:v1"])) == ["m:v3"]


def test_nothing_is_awaited_where_nothing_is_new() -> None:
    before = (model("v1", "v2"),)
    found = plan(before, (model("v1", "v2", split={"v2": 1}),), Serving(before))
    assert found.awaited == frozenset()
    assert found.is_ready(Standing())


def test_who_gets_no_traffic_is_not_awaited() -> None:
    before = (model("v1"),)
    assert plan(before, (model("v1", "v2", split={"v1": 1}),), Serving(before)).awaited == frozenset()
    changed = Serving(before, {"m": ModelChanges(split={"v1": 1.0})})
    assert plan(before, (model("v1", "v2"),), changed).awaited == frozenset(), "the split was changed at run time"


def test_a_version_that_a_former_file_is_still_waiting_for_is_awaited_again() -> None:
    before, after = (model("v1", "v2", split={"v1": 3, "v2": 1}),), (model("v2", "v3", split={"v2": 1, "v3": 1}),)
    first = plan(before, after, Serving(before))
    assert plan(first.before, after, Serving(first.blended)).awaited == {"m:v3"}


def test_a_version_that_was_loaded_and_is_not_ready_is_awaited() -> None:
    before = (model("v1"),)
    loaded = {"m": ModelChanges(added=model("v2").versions)}
    assert plan(before, (model("v1", "v2", split={"v2": 1}),), Serving(before, loaded)).awaited == {"m:v2"}


def test_what_a_rollout_moves_is_not_taken_away() -> None:
    before = (model("v1", "v2"), model("v1", "v2", name="n"))
    serving = Serving(before, {"m": ModelChanges(rollout="r1")})
    assert list(find_taken(serving, (model("v1", "v2"),))) == []
    assert list(find_taken(serving, (model("v2"),))) == ["m:v1, while the rollout r1 moves the traffic of m"]
    assert list(find_taken(serving, ()))


def test_models_come_and_go() -> None:
    before, after = (model("v1"), model("v1", name="old")), (model("v1"), model("v1", name="new"))
    found = plan(before, after, Serving(before))
    assert (found.awaited, [one.name for one in found.blended]) == (frozenset(), ["m", "new"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"engine_args": {"tokens": 9}}, "another engine_args"),
        ({"env": {"A": "b"}, "adapters": {"a": "/a"}}, "another adapters, env"),
    ],
)
def test_a_version_cannot_become_another_one(fields: dict[str, Any], said: str) -> None:
    [conflict] = find_conflicts([model("v1")], [model("v1", **fields)])
    assert conflict.startswith(f"m:v1 is served with {said}: give the changed one another name")
    assert list(find_conflicts([model("v1")], [model("v2", **fields)])) == []


@pytest.mark.parametrize(
    "fields", [{"replicas": 3}, {"routing": "round_robin"}, {"defaults": {"n": 1}}, {"price": {"input": 1}}]
)
def test_what_makes_no_other_version_may_change(fields: dict[str, Any]) -> None:
    assert list(find_conflicts([model("v1")], [model("v1", **fields)])) == []


def test_engines_that_guess_are_not_scaled() -> None:
    guessing = {"speculative": {"method": "ngram"}}
    [conflict] = find_conflicts([model("v1", **guessing)], [model("v1", replicas=2, **guessing)])
    assert "another replicas" in conflict


def test_what_counts_at_the_next_start_only_is_named() -> None:
    before = Settings()
    after = Settings(server=ServerSettings(relays=2), admin=AdminSettings(port=1), auth=AuthSettings(required=True))
    assert find_ignored(before, after) == ["server", "admin", "auth.required"]
    assert find_ignored(before, before) == []
