from gateway.telemetry.metrics import RelayCounts, render
from gateway.telemetry.traffic import tell_traffic


def test_shares_rollouts_and_the_state_are_told() -> None:
    told = tell_traffic({"m": {"v1": 0.75, "v2": 0.25}}, {"m": "r3"}, is_state_away=True, dropped=7)
    text = render(RelayCounts(), {}, told).decode()
    for line in ('gateway_version_share{model="m",version="v2"} 0.25', 'gateway_rollout_running{model="m",rollout="r3"} 1.0',
                 "gateway_state_up 0.0", "gateway_observations_dropped_total 7.0"):  # fmt: skip
        assert f"{line}\n" in text


def test_nothing_may_be_under_way() -> None:
    text = render(RelayCounts(), {}, tell_traffic({}, {}, is_state_away=False, dropped=0)).decode()
    assert "gateway_state_up 1.0\n" in text
    assert "gateway_rollout_running{" not in text
