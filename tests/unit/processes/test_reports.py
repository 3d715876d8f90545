from gateway.processes.messages import RelayState, Report
from gateway.processes.reports import render_reports
from gateway.telemetry.drafts import DraftCounts, tell_drafts
from gateway.telemetry.metrics import RelayCounts
from gateway.telemetry.requests import RequestRecord


def report(requests: int, running: dict[str, int], delay_s: float = 0.0) -> Report:
    counts = RelayCounts()
    for _ in range(requests):
        counts.count(RequestRecord("id", "/v1/x", 0.0, "m", "v1", "v1-0", 200, "done", 0.1, 3, 4), 0.5)
    return Report(counts, running, delay_s)


def test_relays_are_added_up_and_told_apart_in_their_own_health() -> None:
    relays = [RelayState(1, report(2, {"a": 1, "b": 2}, 0.25)), RelayState(3, report(5, {"b": 4})), RelayState(1)]
    text = render_reports(relays).decode()
    assert 'gateway_requests_total{endpoint="/v1/x",model="m",outcome="done",status="200",version="v1"} 7.0' in text
    assert 'gateway_tokens_total{direction="out",estimated="false",model="m",version="v1"} 28.0' in text
    assert 'gateway_requests_running{address="a"} 1.0' in text
    assert 'gateway_requests_running{address="b"} 6.0' in text
    assert 'gateway_relay_starts_total{relay="1"} 3.0' in text
    assert 'gateway_routes_delay_seconds{relay="0"} 0.25' in text
    assert 'gateway_routes_delay_seconds{relay="2"}' not in text  # it has said nothing yet


def test_other_metrics_stand_beside_them() -> None:
    text = render_reports([], tell_drafts({("m", "v1"): DraftCounts(1, 4, 2)})).decode()
    assert 'gateway_speculative_guessed_total{model="m",version="v1"} 4.0' in text


def test_reports_are_left_as_they_are() -> None:
    first = report(2, {})
    render_reports([RelayState(1, first), RelayState(1, report(1, {}))])
    assert first == report(2, {})
