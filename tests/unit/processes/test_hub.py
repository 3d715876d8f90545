import asyncio
import time
from collections.abc import Callable
from functools import partial

import pytest

from gateway.control.mirror import UNKNOWN
from gateway.engines.engine import EngineState, EngineStatus
from gateway.fleet.replica import Replica
from gateway.processes.hub import Hub
from gateway.processes.messages import (
    AdapterSet,
    Alive,
    AnyMessage,
    Ask,
    Demand,
    Engines,
    FeedbackGiven,
    GiveFeedback,
    Hurry,
    Keep,
    KeepSettings,
    NewRoutes,
    Observations,
    RelayState,
    Reload,
    Remember,
    Report,
    Reports,
    SetAdapter,
    Welcome,
)
from gateway.state import Snapshot
from gateway.tasks import TaskSet
from gateway.telemetry.metrics import RelayCounts
from gateway.telemetry.observations import Observed, Usage
from gateway.telemetry.requests import RequestRecord
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import ModelRoute, Routes, VersionRoute
from gateway.traffic.split import Split
from tests.support.fake_engines import until

ROUTES = Routes({"m": ModelRoute("m", {}, Split(b"m", Allocation()))})


def report(requests: int, answers: int = 0, **running: int) -> Report:
    counts = RelayCounts()
    for _ in range(requests):
        counts.count(RequestRecord("id", "/v1/x", 0.0, "m", "v1"), 0.5)
    return Report(counts, running, answers=answers)


class FakeProcess:
    """A process that comes up when told, and records what it is told."""

    def __init__(
        self, can_start: bool, welcome: Callable[[], Welcome], on_message: Callable[[AnyMessage], None]
    ) -> None:
        self.starts = 1
        self.is_up = True
        self.welcome = welcome
        self.say = on_message
        self.told: list[AnyMessage] = []
        self.stops = 0
        self.is_stubborn = self.is_retired = False
        self._can_start = can_start
        self._ended = asyncio.Event()

    async def run(self) -> None:
        await self._ended.wait()

    async def came_up(self) -> bool:
        return self._can_start

    def send(self, message: AnyMessage) -> None:
        self.told.append(message)
        if isinstance(message, Hurry):
            self._ended.set()

    def retire(self) -> None:
        self.is_retired = True

    def stop(self) -> None:
        self.stops += 1
        if not self.is_stubborn:
            self._ended.set()


class Bench:
    def __init__(self, relays: int = 2, can_relay_start: bool = True) -> None:
        self.engines = Engines()
        self.fault: str | None = None
        self.set: list[SetAdapter] = []
        self.made: list[FakeProcess] = []

        def make(
            can_start: bool, welcome: Callable[[], Welcome], on_message: Callable[[AnyMessage], None]
        ) -> FakeProcess:
            self.made.append(FakeProcess(can_start, welcome, on_message))
            return self.made[-1]

        makers = [partial(make, can_relay_start)] * relays
        self.kept: list[bytes] = []
        self.woken: list[tuple[str, str]] = []
        self.hub = Hub(
            lambda: self.engines, self.kept.append, self.set_adapter, lambda *version: self.woken.append(version), "here", b"all", b"first", b"server", partial(make, True), makers,
        )  # fmt: skip
        self.control, *self.relays = self.made

    async def set_adapter(self, asked: SetAdapter) -> str | None:
        self.set.append(asked)
        return self.fault


async def test_what_control_asks_of_the_engines_is_done_and_told() -> None:
    bench = Bench()
    for number, fault in ((1, None), (2, "no room")):
        asked = SetAdapter(number, "m", "v1", "a", "/a")
        bench.fault = fault
        bench.control.say(asked)
        await until(lambda number=number: len(bench.control.told) == number)
    assert [asked.number for asked in bench.set] == [1, 2]
    assert bench.control.told == [AdapterSet(1), AdapterSet(2, "no room")]


async def test_a_defect_in_what_control_asked_for_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    async def break_down(asked: SetAdapter) -> str | None:
        raise ZeroDivisionError

    bench.hub._set_adapter = break_down
    bench.control.say(SetAdapter(1, "m", "v1", "a", "/a"))
    await until(lambda: bool(bench.control.told))
    assert bench.control.told == [AdapterSet(1, "the gateway failed on this; its log has the details")]
    assert "setting an adapter failed" in caplog.text


async def test_routes_reach_every_relay_and_are_kept_for_those_that_come_later() -> None:
    bench = Bench()
    news = NewRoutes(ROUTES, 1.0)
    bench.control.say(news)
    assert [relay.told for relay in bench.relays] == [[news], [news]]
    assert bench.relays[1].welcome() == Welcome(b"server", routes=ROUTES)


async def test_what_is_served_is_kept_and_a_new_control_is_told_of_it() -> None:
    bench = Bench()
    bench.control.say(Keep(b"other"))
    assert bench.kept == [b"other"]
    assert bench.control.welcome().serving == b"other"


async def test_what_relays_ask_for_is_woken() -> None:
    bench = Bench()
    bench.relays[1].say(Demand("m", "v1"))
    assert bench.woken == [("m", "v1")]


async def test_requests_under_way_are_added_up_over_relays() -> None:
    bench = Bench()
    assert bench.hub.count_running("a") == 0
    bench.relays[0].say(report(1, a=2, b=1))
    bench.relays[1].say(report(1, a=1))
    assert bench.hub.count_running("a") == 3
    bench.hub._reported_s[1] = time.monotonic() - 60
    assert bench.hub.count_running("b") == 2, "nobody knows what a relay does that has fallen silent"
    assert (bench.hub.count_ended("m", "v1"), bench.hub.count_ended("m", "v2")) == (2, 0)


async def test_what_relays_may_still_send_to_is_known() -> None:
    bench = Bench()
    version = VersionRoute("v1", (Replica("v1-0", "m", "v1", "unix:///e", "m"),))
    routed = Routes({"m": ModelRoute("m", {"v1": version}, Split(b"m", Allocation()))})
    bench.control.say(NewRoutes(routed, 1.0))
    assert (bench.hub.is_routed("unix:///e"), bench.hub.is_routed("unix:///other")) == (True, False)


async def test_control_is_welcomed_with_the_engines_as_they_are() -> None:
    bench = Bench()
    bench.engines = Engines([EngineStatus("m:v1#0", "m", "v1", EngineState.READY, 1.0)])
    before = time.time()
    assert bench.control.welcome() == Welcome(
        b"all", bench.engines, b"first", UNKNOWN, "here", bench.control.welcome().started
    )
    assert before - 60 < bench.control.welcome().started <= before
    bench.hub.tell_engines()
    assert bench.control.told == [bench.engines]


async def test_a_relay_counts_on_from_its_predecessor_of_whom_nothing_runs_any_more() -> None:
    bench = Bench()
    bench.relays[0].say(report(3, a=2))
    assert bench.relays[0].welcome().counts == report(3).counts
    assert bench.relays[1].welcome().counts == RelayCounts()
    bench.control.say(Ask(1))
    bench.relays[1].say(report(1, answers=1, b=1))
    await until(lambda: bool(bench.control.told))
    assert bench.control.told == [Reports(1, [RelayState(1, report(3)), RelayState(1, report(1, answers=1, b=1))])]


async def test_an_ask_is_answered_when_the_last_relay_has_reported() -> None:
    bench = Bench()
    bench.control.say(Ask(7))
    assert [relay.told for relay in bench.relays] == [[Ask(7)], [Ask(7)]]
    bench.relays[0].say(report(1, answers=7))
    bench.relays[1].say(report(1))  # the one of every second, not the answer
    assert bench.control.told == []
    bench.relays[1].say(report(2, answers=7))
    assert bench.control.told == [
        Reports(7, [RelayState(1, report(1, answers=7)), RelayState(1, report(2, answers=7))])
    ]


async def test_a_relay_that_does_not_answer_counts_with_what_it_said_last() -> None:
    bench = Bench()
    bench.relays[0].say(report(4))
    bench.relays[0].starts = 2
    bench.control.say(Ask(1))
    bench.relays[1].say(report(1, answers=1))
    async with asyncio.timeout(5):
        await until(lambda: bool(bench.control.told))
    assert bench.control.told == [Reports(1, [RelayState(2, report(4)), RelayState(1, report(1, answers=1))])]
    bench.relays[0].say(report(5, answers=1))  # too late
    assert len(bench.control.told) == 1


async def test_two_who_ask_at_once_both_get_an_answer_at_once() -> None:
    bench = Bench()
    bench.control.say(Ask(1))
    bench.control.say(Ask(2))
    for relay in bench.relays:  # each heard both before it could answer the first
        relay.say(report(1, answers=2))
    assert [message.number for message in bench.control.told if isinstance(message, Reports)] == [1, 2]


async def test_what_nobody_waits_for_is_ignored() -> None:
    bench = Bench()
    for process in bench.made:
        process.say(Alive())
    assert [process.told for process in bench.made] == [[], [], []]


async def test_it_starts_only_when_all_of_them_do() -> None:
    good, bad = Bench(), Bench(can_relay_start=False)
    assert (await good.hub.start(), await bad.hub.start()) == (True, False)
    for bench in (good, bad):
        await bench.hub.drain(0.0, asyncio.Event())
        await bench.hub.close()


async def test_draining_waits_for_relays_and_leaves_control_alone() -> None:
    bench = Bench()
    await bench.hub.start()
    async with asyncio.timeout(5):
        await bench.hub.drain(60.0, asyncio.Event())
    assert [process.stops for process in bench.made] == [0, 1, 1]
    assert bench.control.is_retired  # should it end now, it is not started again on sockets that are closed
    await bench.hub.close()
    assert bench.control.stops == 1


async def test_a_second_signal_is_passed_on() -> None:
    bench = Bench()
    bench.relays[0].is_stubborn = True
    await bench.hub.start()
    hurry = asyncio.Event()
    tasks = TaskSet()
    draining = tasks.start(bench.hub.drain(60.0, hurry), "drain")
    await until(lambda: bench.relays[0].stops == 1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not draining.done()
    hurry.set()
    async with asyncio.timeout(5):
        await draining
    assert bench.relays[0].told == [Hurry()]
    assert bench.relays[0].stops == 1
    await bench.hub.close()


async def test_what_control_has_read_of_the_state_is_for_its_successor() -> None:
    bench = Bench()
    bench.control.say(Remember(Snapshot(3, {"a": b"1"})))
    assert bench.control.welcome().state == Snapshot(3, {"a": b"1"})


async def test_settings_that_control_has_read_again_are_for_its_successor() -> None:
    bench = Bench()
    assert bench.control.welcome().settings == b"all"
    bench.control.say(KeepSettings(b"others"))
    assert bench.control.welcome().settings == b"others"


async def test_what_relays_have_observed_waits_for_control() -> None:
    bench = Bench()
    told = [Observations(Observed(usage=[Usage("", "m", f"v{number}")])) for number in range(4)]
    bench.relays[0].say(told[0])
    bench.control.is_up = False
    bench.relays[0].say(told[1])
    bench.relays[1].say(told[2])
    assert bench.control.told == told[:1]
    bench.control.is_up = True
    bench.relays[0].say(told[3])
    assert bench.control.told == told


async def test_what_waited_for_control_is_told_when_it_is_there_and_before_feedback() -> None:
    bench = Bench()
    told: list[AnyMessage] = [Observations(Observed(usage=[Usage("", "m", f"v{number}")])) for number in range(2)]
    bench.control.is_up = False
    bench.relays[0].say(told[0])
    bench.control.is_up = True
    bench.control.say(Alive())
    assert bench.control.told == told[:1]
    bench.control.is_up = False
    bench.relays[0].say(told[1])
    bench.control.is_up = True
    bench.relays[1].say(GiveFeedback(3, "r1", "thumb", 0.5, ""))
    assert bench.control.told == [*told, GiveFeedback(3, "r1", "thumb", 0.5, "", 1)]


async def test_what_waits_for_control_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.processes.hub._MOST_LATE", 2)
    bench = Bench()
    bench.control.is_up = False
    told = [Observations(Observed(usage=[Usage("", "m", f"v{number}")])) for number in range(4)]
    for message in told[:3]:
        bench.relays[0].say(message)
    bench.control.is_up = True
    bench.relays[0].say(told[3])
    assert bench.control.told == told[2:], "the latest are kept"


async def test_feedback_goes_to_control_and_what_became_of_it_back_to_its_relay() -> None:
    bench = Bench()
    bench.relays[1].say(GiveFeedback(7, "r1", "thumb", 1.0, "anna"))
    assert bench.control.told == [GiveFeedback(7, "r1", "thumb", 1.0, "anna", relay=1)]
    bench.control.say(given := FeedbackGiven(7, 1, {"counted": True}))
    assert (bench.relays[0].told, bench.relays[1].told) == ([], [given])


async def test_the_file_is_read_again_by_control_when_it_is_there() -> None:
    bench = Bench()
    bench.control.is_up = False
    bench.hub.reload()
    assert bench.control.told == []
    bench.control.is_up = True
    bench.relays[0].say(Observations(Observed()))
    assert bench.control.told[0] == Reload()
