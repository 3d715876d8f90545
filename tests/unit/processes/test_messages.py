"""Every message survives the way from one process to another."""

import msgspec
import pytest

from gateway.engines.engine import EngineState, EngineStatus
from gateway.errors import Fault
from gateway.fleet.replica import Replica
from gateway.processes.messages import (
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
    Up,
    Welcome,
)
from gateway.state import Snapshot
from gateway.telemetry.metrics import RelayCounts
from gateway.telemetry.observations import Observation, Observed, Usage
from gateway.telemetry.requests import RequestRecord
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import ModelRoute, PixelBounds, Routes, VersionRoute
from gateway.traffic.split import Split

REPLICA = Replica("v1-0", "m", "v1", "unix:///run/0.sock", "org/m")
VERSION = VersionRoute(
    "v1",
    (REPLICA,),
    {"a": "m:v1+a@0f"},
    {"temperature": b"0.0"},
    "Look.",
    "ready",
    2048,
    "round_robin",
    can_wake=True,
    pictures=PixelBounds(9, 5),
)
ROUTES = Routes({"m": ModelRoute("m", {"v1": VERSION}, Split.over("m", Allocation.divide({"v1": 1.0})), ("user",), 5)})
STATUS = EngineStatus("m:v1#0", "m", "v1", EngineState.FAILED, 1.5, reason="no memory", tail=("a", "b"), pid=7)

STATE = Snapshot(3, {"model/m": b"{}"})
OBSERVATION = Observation("id1", "m", "v1", 2**47, 2**64 - 1, is_own=True, did_fail=None, ttft_s=0.5)


def counts() -> RelayCounts:
    counted = RelayCounts()
    counted.count(RequestRecord("id", "/v1/x", 0.0, "m", "v1", "v1-0", 200, "done", 0.1, 3, 4), 0.5)
    return counted


@pytest.mark.parametrize(
    "message",
    [
        Welcome(b"{}"),
        Welcome(b"{}", Engines([STATUS], [REPLICA]), b"[]", STATE, "here", 1700000000, ROUTES, counts()),
        Remember(STATE),
        Reload(),
        GiveFeedback(3, "r1", "thumb", 0.5, "anna", 1),
        FeedbackGiven(3, 1, {"counted": True}),
        FeedbackGiven(3, 1, fault=Fault("conflict", "no", "request_id", 5)),
        Observations(Observed([OBSERVATION], [Usage("anna", "m", "v1", 1, 0, 3)])),
        Hurry(),
        Keep(b"[]"),
        KeepSettings(b"{}"),
        Demand("m", "v1"),
        Up(),
        Alive(),
        Engines([STATUS], [REPLICA]),
        NewRoutes(ROUTES, 12.5),
        Report(counts(), {"unix:///run/0.sock": 2}, 0.001, 3),
        Ask(3),
        Reports(3, [RelayState(1), RelayState(2, Report(counts(), {}))]),
    ],
)
def test_it_is_the_same_on_the_other_side(message: AnyMessage) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=AnyMessage) == message
