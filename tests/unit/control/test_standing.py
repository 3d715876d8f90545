import time
from dataclasses import replace
from typing import Any

import msgspec

from gateway.control.serving import Serving
from gateway.control.standing import Standing, decode, is_failed, is_ready, is_up, is_up_everywhere, read_standing
from gateway.engines.engine import EngineState, EngineStatus
from gateway.settings import ModelSettings


def serving(**version: Any) -> Serving:
    one = {"name": "v1", **({"engine": "simulated"} | version)}
    return Serving((ModelSettings.model_validate({"name": "m", "versions": [one]}),))


def engine(state: EngineState, index: int = 0, *, is_final: bool = False) -> EngineStatus:
    status = EngineStatus(f"m:v1#{index}", "m", "v1", state, time.time())
    return replace(status, next_try_at=None if is_final else 5.0)


READY, STARTING, FAILED = EngineState.READY, EngineState.STARTING, EngineState.FAILED


def test_a_version_is_ready_when_all_its_engines_are() -> None:
    two = serving(replicas=2)
    assert read_standing(two, []) == Standing(["m:v1"])
    assert read_standing(two, [engine(READY), engine(STARTING, 1)]) == Standing(["m:v1"], up=["m:v1"])
    assert read_standing(two, [engine(READY), engine(READY, 1)]) == Standing(["m:v1"], ["m:v1"], up=["m:v1"])
    assert read_standing(two, [engine(READY), engine(EngineState.ASLEEP, 1)]).ready == ["m:v1"]


def test_it_has_failed_when_too_few_are_left_that_may_come() -> None:
    two = serving(replicas=2)
    assert read_standing(two, [engine(READY), engine(FAILED, 1)]).failed == [], "it is tried again"
    assert read_standing(two, [engine(READY), engine(FAILED, 1, is_final=True)]).failed == ["m:v1"]
    spare = [engine(READY), engine(STARTING, 1), engine(FAILED, 2, is_final=True)]
    assert read_standing(two, spare).failed == [], "one that was to take another's place is not missed"


def test_engines_elsewhere_count_by_their_addresses() -> None:
    far = serving(endpoints=["http://a:1", "http://b:1"], engine="vllm")
    assert read_standing(far, [engine(READY)]).ready == []
    assert read_standing(far, [engine(READY), engine(READY, 1)]).ready == ["m:v1"]


def test_what_counts_is_every_gateway_that_serves_it() -> None:
    up, down, other = Standing(["m:v1"], ["m:v1"]), Standing(["m:v1"]), Standing(["n:v1"], ["n:v1"])
    assert is_ready([up, up, other], "m:v1")
    assert not is_ready([up, down], "m:v1")
    assert not is_ready([other], "m:v1")
    assert not is_ready([], "m:v1")
    assert not is_up([up, other], "m:v1")
    assert is_up([down, Standing(["m:v1"], up=["m:v1"])], "m:v1")
    assert is_up_everywhere([Standing(["m:v1"], up=["m:v1"]), other], "m:v1")
    assert not is_up_everywhere([Standing(["m:v1"], up=["m:v1"]), down], "m:v1")
    assert is_failed([up, Standing(["m:v1"], [], ["m:v1"])], "m:v1")
    assert not is_failed([up, down], "m:v1")


def test_a_gateway_that_cannot_be_understood_says_nothing() -> None:
    one = Standing(["m:v1"], ["m:v1"], [])
    assert decode({"a": msgspec.json.encode(one), "b": b"{", "c": b'{"served": 7}'}) == {"a": one}
