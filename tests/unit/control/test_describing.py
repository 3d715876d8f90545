import time
from dataclasses import replace
from typing import Any

import pytest

from gateway.control.changes import ModelChanges
from gateway.control.describing import describe, list_stand_ins, tell
from gateway.control.serving import Serving
from gateway.engines.engine import EngineState, EngineStatus
from gateway.fleet.replica import Replica
from gateway.settings import ModelSettings
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import ModelRoute, Routes, VersionRoute
from gateway.traffic.split import Split

MODEL = ModelSettings.model_validate(
    {
        "name": "m",
        "split": {"v1": 9, "v2": 1},
        "shadow": {"version": "v2", "percent": 5},
        "versions": [
            {"name": "v1", "engine": "simulated", "adapters": {"b": "/b", "a": "/a"}},
            {"name": "v2", "endpoints": ["http://a:1"]},
        ],
    }
)


def engine(version: str, state: EngineState = EngineState.READY, **fields: Any) -> EngineStatus:
    return replace(EngineStatus(f"m:{version}#0", "m", version, state, time.time() - 5), **fields)


def test_people_see_shares_states_and_who_stands_in() -> None:
    serving = Serving((MODEL,), {"m": ModelChanges(rollout="r1")})
    [model] = describe(
        serving, [engine("v1"), engine("v2", EngineState.FAILED, reason="gone")], {"m": frozenset({"v2"})}
    )
    one, two = model["versions"]
    assert (model["split"], model["stage"], model["rollout"]) == ({"v1": 0.9, "v2": 0.1}, serving.stages["m"], "r1")
    assert (model["shadow"]["version"], model["shadow"]["percent"]) == ("v2", 5)
    assert (one["share"], one["is_out"], one["adapters"], one["engines"][0]["state"]) == (0.9, False, [], "ready")
    assert (two["is_out"], two["endpoints"], two["engines"][0]["reason"]) == (True, ["http://a:1"], "gone")
    assert one["engines"][0]["seconds_in_state"] == pytest.approx(5, abs=1)


def test_what_is_left_of_a_version_that_was_removed_is_shown() -> None:
    [model] = describe(Serving((MODEL,)), [engine("v0", EngineState.DRAINING)], {})
    assert [version["name"] for version in model["versions"]] == ["v1", "v2", "v0"]
    assert (model["versions"][2]["share"], len(model["versions"][2]["engines"])) == (0.0, 1)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (engine("v1", ready_after_s=2.5), "m:v1#0 is ready after 2.5 s"),
        (engine("v1"), "m:v1#0 is ready"),
        (engine("v1", EngineState.STARTING, phase="loading"), "m:v1#0 is starting: loading"),
        (engine("v1", EngineState.STOPPED), "m:v1#0 is stopped"),
        (engine("v1", EngineState.FAILED), ""),
    ],
)
def test_changes_are_told_in_a_line(status: EngineStatus, said: str) -> None:
    assert tell(status) == said


def routes(out: tuple[str, ...], *ready: str) -> Routes:
    versions = {
        name: VersionRoute(name, (Replica(f"{name}-0", "m", name, "unix:///e", "m"),) if name in ready else ())
        for name in ("v1", "v2")
    }
    split = Split.over("m", Allocation.divide({"v1": 0.5, "v2": 0.5}), out)
    return Routes({"m": ModelRoute("m", versions, split)})


def test_who_stands_in_for_a_version_that_was_ready_is_an_event() -> None:
    both, one, none = routes((), "v1", "v2"), routes(("v2",), "v1"), routes((), *())
    [out] = list_stand_ins(both, one)
    assert (out.kind, out.text) == ("version_out", "m:v2 has no ready engine: others stand in for it")
    [back] = list_stand_ins(one, both)
    assert (back.kind, back.text) == ("version_back", "m:v2 is ready, and has its users")
    assert list(list_stand_ins(none, one)) == [], "it has never been ready"
    assert list(list_stand_ins(Routes(), one)) == []
    assert list(list_stand_ins(both, both)) == []
