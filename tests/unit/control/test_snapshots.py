import time
from dataclasses import replace
from typing import Any

from gateway.control.changes import ModelChanges
from gateway.control.serving import Serving
from gateway.control.snapshots import build_routes, find_adapters, group
from gateway.engines.engine import EngineState, EngineStatus
from gateway.fleet.replica import Replica
from gateway.settings import ModelSettings, ShadowSettings
from gateway.traffic.routes import Routes

READY, FAILED, ASLEEP = EngineState.READY, EngineState.FAILED, EngineState.ASLEEP


def serving(*versions: dict[str, Any], split: dict[str, float] | None = None, **changes: Any) -> Serving:
    known = [{"engine": "simulated"} | version for version in versions]
    model = ModelSettings.model_validate({"name": "m", "versions": known, "split": split or {}, "sticky_by": ["user"]})
    return Serving((model,), {"m": ModelChanges(**changes)})


def engine(version: str, state: EngineState = READY, **fields: Any) -> EngineStatus:
    return replace(EngineStatus(f"m:{version}#0", "m", version, state, time.time()), **fields)


def replica(version: str) -> Replica:
    return Replica(f"{version}-0", "m", version, f"unix:///{version}", "m")


def build(of: Serving, *engines: EngineStatus) -> Routes:
    replicas = [replica(one.version) for one in engines if one.state is READY]
    return build_routes(of, engines, replicas, {}, created=7)


def test_what_can_answer_has_replicas_and_what_cannot_has_stand_ins() -> None:
    two = serving({"name": "v1"}, {"name": "v2"}, split={"v1": 3, "v2": 1})
    model = build(two, engine("v1"), engine("v2", FAILED)).models["m"]
    assert [len(version.replicas) for version in model.versions.values()] == [1, 0]
    assert (model.split.out, model.versions["v2"].state) == (frozenset({"v2"}), "failed")
    assert (model.created, model.sticky_by) == (7, ("user",))
    assert build(two).models["m"].split.out == frozenset(), "there is nobody to stand in"
    assert build(two).models["m"].versions["v1"].state == "not started"


def test_nobody_stands_in_for_one_that_can_wake() -> None:
    sleepy = serving({"name": "v1", "sleep_after_s": 60}, {"name": "v2"})
    model = build(sleepy, engine("v1", ASLEEP), engine("v2")).models["m"]
    assert (model.split.out, model.versions["v1"].can_wake) == (frozenset(), True)
    assert build(sleepy, engine("v1", FAILED), engine("v2")).models["m"].split.out == {"v1"}


def test_users_are_spread_as_is_remembered() -> None:
    two = serving({"name": "v1"}, {"name": "v2"}, allocation=((2**31, "v2"), (2**32, "v1")))
    split = build(two, engine("v1"), engine("v2")).models["m"].split
    assert split.allocation.names == ("v2", "v1")


def test_a_model_with_nothing_to_compare_is_in_no_stage() -> None:
    assert build(serving({"name": "v1"})).models["m"].stage == 0
    assert build(serving({"name": "v1"}, {"name": "v2"})).models["m"].stage > 0


def test_copies_go_where_it_is_said() -> None:
    assert build(serving({"name": "v1"}, {"name": "v2"})).models["m"].shadow is None
    asked = ShadowSettings(version="v2", percent=5, concurrency=9)
    changes = {"shadow": asked, "is_shadow_touched": True}
    shadow = build(serving({"name": "v1"}, {"name": "v2"}, split={"v1": 1}, **changes)).models["m"].shadow
    assert shadow is not None
    assert (shadow.version, shadow.percent, shadow.concurrency) == ("v2", 5, 9)
    assert shadow.stage > 0


def test_defaults_are_raw_json_and_the_system_prompt_is_none_of_them() -> None:
    version = build(serving({"name": "v1", "defaults": {"temperature": 0.0, "system_prompt": "Look."}})).models["m"]
    assert version.versions["v1"].defaults == {"temperature": b"0.0"}
    assert version.versions["v1"].system_prompt == "Look."


def test_digests_are_those_of_a_ready_engine() -> None:
    one = serving({"name": "v1"})
    digests = {"": "aa", "m:v1+a@12": "bb"}
    assert build(one, engine("v1", digests=digests)).models["m"].versions["v1"].digests == {"": "aa", "a": "bb"}
    assert build(one, engine("v1", FAILED, digests=digests)).models["m"].versions["v1"].digests == {}


def test_adapters_are_those_that_every_ready_engine_has() -> None:
    one = serving({"name": "v1", "adapters": {"a": "/a"}})
    model, version = one.models[0], one.models[0].versions[0]
    assert find_adapters(model, version, []) == {"a": "m:v1+a"}
    both = [engine("v1", adapters=("m:v1+a@12", "m:v1+b")), engine("v1", adapters=("m:v1+a@12",))]
    assert find_adapters(model, version, both) == {"a": "m:v1+a@12"}
    assert find_adapters(model, version, [engine("v1", FAILED, adapters=("m:v1+b",))]) == {"b": "m:v1+b"}


def test_engines_are_grouped_by_their_version() -> None:
    one, two = engine("v1"), engine("v2")
    assert group([one, two, one]) == {("m", "v1"): [one, one], ("m", "v2"): [two]}
