import asyncio

import pytest

from gateway.errors import Draining, NoReplica
from gateway.fleet.replica import Replica
from gateway.proxy import waiting
from gateway.proxy.call import Call, Client, RequestHead
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.waiting import Held, Sent, WaitingRoom
from gateway.telemetry.requests import RequestRecord
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import ModelRoute, Routes, VersionRoute
from gateway.traffic.split import Split
from tests.support.recorders import RecordingClient

V1 = ("m", "v1")


def routes(*, is_ready: bool = False, can_wake: bool = True, state: str = "starting") -> Routes:
    replicas = (Replica("v1-0", "m", "v1", "unix:///e", "m"),) if is_ready else ()
    versions = {"v1": VersionRoute("v1", replicas, can_wake=can_wake, state=state)}
    return Routes({"m": ModelRoute("m", versions, Split.over("m", Allocation.divide({"v1": 1.0})))})


class FakeSent:
    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def hang_up(self) -> None:
        self.told.append("hang_up")


class Bench:
    def __init__(self, limit_s: float = 60) -> None:
        self.demanded: list[tuple[str, str]] = []
        self.room = WaitingRoom(lambda *version: self.demanded.append(version), limit_s)
        self.clients: list[RecordingClient] = []
        self.sent = FakeSent()
        self.fault: Exception | None = None
        self.record = RequestRecord("id1", "/v1/chat/completions", 0.0)

    def send(self, call: Call, client: Client) -> Sent:
        if self.fault is not None:
            raise self.fault
        return self.sent

    def hold(self, size: int = 1, target: tuple[str, str] = V1) -> Held:
        self.clients.append(RecordingClient())
        head = RequestHead(ENDPOINTS["/v1/chat/completions"], {}, b"")
        return self.room.hold(Call(head, b"x" * size, "9.9.9.9", self.record), self.clients[-1], target, self.send)


async def test_a_held_call_asks_for_its_version_once_and_is_sent_when_it_is_up() -> None:
    bench = Bench()
    held = bench.hold()
    bench.hold()
    assert bench.demanded == [V1]
    bench.room.look_again(routes())
    assert held.sent is None
    bench.room.look_again(routes(is_ready=True))
    assert (held.sent, len(bench.room)) == (bench.sent, 0)
    bench.hold()
    assert bench.demanded == [V1, V1], "it may sleep again"


async def test_what_still_sleeps_is_asked_for_again() -> None:
    bench = Bench()
    bench.hold()
    bench.room.look_again(routes(state="starting"))
    assert bench.demanded == [V1]
    bench.room.look_again(routes(state="asleep"))
    assert bench.demanded == [V1, V1]


async def test_what_the_client_does_reaches_the_call_when_it_is_sent() -> None:
    bench = Bench()
    held = bench.hold()
    held.pause()
    bench.room.look_again(routes(is_ready=True))
    held.resume()
    held.hang_up()
    assert bench.sent.told == ["pause", "resume", "hang_up"]


async def test_a_client_that_hangs_up_waits_no_longer() -> None:
    bench = Bench()
    held = bench.hold()
    held.hang_up()
    assert (len(bench.room), bench.record.status, bench.record.outcome) == (0, 499, "hung_up")
    bench.room.look_again(routes(is_ready=True))
    assert held.sent is None


@pytest.mark.parametrize("snapshot", [routes(can_wake=False), Routes()])
async def test_one_that_cannot_come_any_more_is_tried_once_more_and_refused(snapshot: Routes) -> None:
    bench = Bench()
    bench.fault = NoReplica("No engine is ready for m:v1 (failed): try again shortly.")
    bench.hold()
    bench.room.look_again(snapshot)
    assert bench.clients[0].error is bench.fault


async def test_a_defect_refuses_the_call_and_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.fault = ZeroDivisionError()
    bench.hold()
    other = Bench()
    other.room = bench.room
    held = other.hold()
    bench.room.look_again(routes(is_ready=True))
    assert bench.clients[0].status == 500
    assert held.sent is other.sent
    assert "request id1 failed inside the gateway" in caplog.text


async def test_nobody_waits_longer_than_the_limit() -> None:
    bench = Bench(limit_s=0.01)
    bench.hold()
    await asyncio.sleep(0.05)
    error = bench.clients[0].error
    assert isinstance(error, NoReplica)
    assert "m:v1 was up within 0.01 s" in error.message


async def test_at_a_drain_all_are_refused() -> None:
    bench = Bench()
    bench.hold()
    bench.hold()
    bench.room.close(lambda: Draining("down"))
    assert ([type(client.error) for client in bench.clients], len(bench.room)) == ([Draining, Draining], 0)


@pytest.mark.parametrize(("limit", "value"), [("_MOST_HELD", 2), ("_MOST_HELD_BYTES", 25)])
async def test_no_more_wait_than_memory_allows(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(waiting, limit, value)
    bench = Bench()
    first = bench.hold(10)
    bench.hold(10)
    with pytest.raises(NoReplica, match="Too many requests wait"):
        bench.hold(10)
    first.hang_up()
    bench.hold(10)
