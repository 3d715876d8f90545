import asyncio
from typing import Any

import pytest

from gateway.control import feedback as module
from gateway.control.evidence import EvidenceDesk
from gateway.control.feedback import FeedbackDesk
from gateway.errors import BadRequest, Conflict, GatewayError, NotFound, StateUnavailable, UnknownModel
from gateway.settings import ModelSettings
from gateway.state import REQUESTS, USERS
from gateway.state.sqlite import SqliteStore
from gateway.telemetry.observations import Observation, Observed

MODEL = ModelSettings.model_validate(
    {"name": "m", "versions": [{"name": "v1", "engine": "simulated"}], "metrics": {"stars": {"low": 1, "high": 5}}}
)


def find_model(name: str) -> ModelSettings:
    if name != "m":
        raise UnknownModel("no")
    return MODEL


class Bench:
    def __init__(self) -> None:
        self.store = SqliteStore(None)
        self.evidence = EvidenceDesk(self.store, lambda model, version: None, dict)
        self.desk = FeedbackDesk(self.store, self.evidence, find_model)

    def end(self, name: str, unit: int = 7, *, is_own: bool = True, caller: str = "", model: str = "m") -> None:
        """A request has ended."""
        one = Observation(name, model, "v1", 5, unit, is_own, False, caller)
        self.evidence.take(Observed([one], []))

    async def give(self, name: str, metric: str = "thumb", value: float = 1.0, caller: str = "") -> dict[str, Any]:
        return await self.desk.give(name, metric, value, caller)

    async def refusal(self, kind: type[GatewayError], *args: Any, **more: Any) -> GatewayError:
        with pytest.raises(kind) as caught:
            await self.give(*args, **more)
        return caught.value


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 0.02)
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.005)


async def test_feedback_counts_for_the_version_of_its_request_and_once_for_the_user() -> None:
    bench = Bench()
    for name, unit in (("r1", 7), ("r2", 7), ("r3", 8)):
        bench.end(name, unit)
    assert await bench.give("r1") == {
        "request_id": "r1", "model": "m", "version": "v1", "metric": "thumb", "counted": True}  # fmt: skip
    await bench.give("r2", value=0.0)
    await bench.give("r3", value=0.0)
    evidence = await bench.store.read_evidence(5)
    assert (evidence["v1", REQUESTS, "thumb"].count, evidence["v1", REQUESTS, "thumb"].total) == (3, 1.0)
    assert (evidence["v1", USERS, "thumb"].count, evidence["v1", USERS, "thumb"].total) == (2, 1.0)
    assert evidence["v1", USERS, "thumb"].buckets == {}
    await bench.store.close()


async def test_on_a_request_that_is_no_evidence_it_is_kept_and_not_counted() -> None:
    bench = Bench()
    bench.end("r1", is_own=False)
    assert (await bench.give("r1"))["counted"] is False
    assert [key[2] for key in await bench.store.read_evidence(5)] == []
    await bench.refusal(Conflict, "r1")
    await bench.store.close()


async def test_a_request_is_judged_once_by_each_metric() -> None:
    bench = Bench()
    bench.end("r1")
    await bench.give("r1")
    error = await bench.refusal(Conflict, "r1", value=0.0)
    assert error.message == "The request r1 has been judged by thumb already."
    await bench.give("r1", "stars", 5)
    await bench.store.close()


async def test_the_answers_own_id_is_as_good() -> None:
    bench = Bench()
    bench.end("r1")
    bench.end("chatcmpl-odd")
    assert (await bench.give("chatcmpl-r1"))["request_id"] == "chatcmpl-r1"
    await bench.refusal(Conflict, "r1")
    await bench.give("chatcmpl-odd")
    await bench.store.close()


async def test_a_request_that_has_just_ended_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 5)
    bench = Bench()
    giving = asyncio.ensure_future(bench.give("r1"))
    await asyncio.sleep(0.02)
    assert not giving.done()
    bench.end("r1")
    assert (await giving)["counted"]
    await bench.store.close()


async def test_unknown_and_foreign_requests_are_not_told_apart() -> None:
    bench = Bench()
    bench.end("r1", caller="anna")
    messages = {
        (await bench.refusal(NotFound, "none")).message,
        (await bench.refusal(NotFound, "r1")).message,
        (await bench.refusal(NotFound, "r1", caller="bert")).message,
    }
    assert len(messages) == 1
    assert "x-request-id" in messages.pop()
    assert (await bench.give("r1", caller="anna"))["counted"]
    await bench.store.close()


async def test_nobody_takes_the_place_of_a_request_by_using_its_id() -> None:
    bench = Bench()
    bench.end("r1", unit=7, caller="anna")
    bench.end("r1", unit=8, caller="bert")
    await bench.give("r1", value=1.0, caller="anna")
    await bench.give("r1", value=0.0, caller="bert")
    await bench.refusal(NotFound, "anna/r1", caller="")
    evidence = await bench.store.read_evidence(5)
    assert (evidence["v1", USERS, "thumb"].count, evidence["v1", USERS, "thumb"].total) == (2, 1.0)
    await bench.store.close()


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        ("thumb", 1.5, "The value of thumb is a number from 0 to 1"),
        ("thumb", -1, "from 0 to 1"),
        ("thumb", float("nan"), "from 0 to 1"),
        ("stars", 0, "The value of stars is a number from 1 to 5"),
        ("ttft_s", 1, "The gateway measures ttft_s itself"),
        ("Thumb!", 1, "The name of a metric"),
        ("x" * 65, 1, "The name of a metric"),
        ("", 1, "The name of a metric"),
    ],
)
async def test_what_cannot_be_a_judgement_is_refused_and_changes_nothing(metric: str, value: float, said: str) -> None:
    bench = Bench()
    bench.end("r1")
    error = await bench.refusal(BadRequest, "r1", metric, value)
    assert said in error.message
    assert all(key[2] != metric for key in await bench.store.read_evidence(5))
    await bench.give("r1")
    await bench.store.close()


async def test_metrics_do_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_METRICS", 3)
    bench = Bench()
    bench.end("r1")
    for metric in ("a", "b", "stars", "a2"):
        if metric == "a2":
            assert "m has 3 metrics already" in (await bench.refusal(BadRequest, "r1", metric)).message
        else:
            await bench.give("r1", metric, 1)
    await bench.store.close()


async def test_metrics_of_the_settings_find_room_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_METRICS", 3)
    bench = Bench()
    bench.end("r1")
    await bench.give("r1", "a")
    await bench.give("r1", "b")
    later = {
        "name": "m",
        "versions": [{"name": "v1", "engine": "simulated"}],
        "metrics": {"c": {}, "stars": {"high": 5}},
    }
    bench.desk._find_model = lambda name: ModelSettings.model_validate(later)
    await bench.give("r1", "c")
    await bench.give("r1", "stars", 5)
    await bench.refusal(BadRequest, "r1", "d")
    await bench.store.close()


async def test_only_metrics_that_were_written_take_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_METRICS", 3)
    bench = Bench()
    bench.end("r1")
    await bench.evidence.write()
    give = bench.store.give

    async def fail(*args: object) -> list[bool]:
        raise StateUnavailable("away")

    async def decline(feedback: Any) -> list[bool]:
        return [False] * len(feedback)

    bench.desk._giving._ask_all = fail
    for number in range(5):
        await bench.refusal(StateUnavailable, "r1", f"lost{number}")
    bench.desk._giving._ask_all = decline
    for number in range(5):
        await bench.refusal(Conflict, "r1", f"known{number}")
    bench.desk._giving._ask_all = give
    asked = await asyncio.gather(*(bench.give("r1", f"n{number}") for number in range(5)), return_exceptions=True)
    assert [type(one) for one in asked] == [dict, dict, BadRequest, BadRequest, BadRequest], "two beside stars"
    await bench.store.close()


async def test_of_a_model_that_has_gone_nothing_is_counted() -> None:
    bench = Bench()
    bench.end("r1", model="gone")
    assert "gone is not served here any more" in (await bench.refusal(NotFound, "r1")).message
    await bench.store.close()


async def test_nothing_is_acknowledged_that_the_store_has_not() -> None:
    bench = Bench()
    bench.end("r1")
    await bench.evidence.write()

    async def fail(*args: object) -> list[bool]:
        raise StateUnavailable("away")

    bench.desk._giving._ask_all = fail
    await bench.refusal(StateUnavailable, "r1")
    bench.desk._giving._ask_all = bench.store.give
    assert (await bench.give("r1"))["counted"]
    await bench.store.close()


async def test_many_at_once_are_written_together() -> None:
    bench = Bench()
    for number in range(100):
        bench.end(f"r{number}", number)
    await bench.evidence.write()
    calls = 0
    give = bench.store.give

    async def count(feedback: Any) -> list[bool]:
        nonlocal calls
        calls += 1
        return await give(feedback)

    bench.desk._giving._ask_all = count
    await asyncio.gather(*(bench.give(f"r{number}") for number in range(100)))
    assert calls < 20
    assert (await bench.store.read_evidence(5))["v1", USERS, "thumb"].count == 100
    await bench.store.close()
