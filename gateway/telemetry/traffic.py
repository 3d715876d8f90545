"""What Prometheus is told of decisions: how traffic is shared, and whether the state can be asked."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def tell_traffic(
    shares: Mapping[str, Mapping[str, float]], rollouts: Mapping[str, str], *, is_state_away: bool, dropped: int
) -> Iterator[Metric]:
    """The metrics. `shares` and the `rollouts` under way are by model; `dropped` requests were not remembered."""
    share = GaugeMetricFamily("gateway_version_share", "Share of the users.", labels=("model", "version"))
    for model, split in shares.items():
        for version, part in split.items():
            share.add_metric((model, version), part)
    running = GaugeMetricFamily(
        "gateway_rollout_running", "1 while a rollout moves traffic.", labels=("model", "rollout")
    )
    for model, rollout in rollouts.items():
        running.add_metric((model, rollout), 1)
    away = GaugeMetricFamily("gateway_state_up", "1 while the state can be asked.", value=0 if is_state_away else 1)
    lost = CounterMetricFamily(
        "gateway_observations_dropped",
        "Requests that are not remembered for feedback: the state was away for too long.",
        value=dropped,
    )
    yield from (share, running, away, lost)
