"""What several relays have reported, added up for Prometheus."""

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.processes.messages import RelayState
from gateway.telemetry.metrics import RelayCounts, render


def render_reports(relays: list[RelayState], extra: Iterable[Metric] = ()) -> bytes:
    """The text that Prometheus scrapes: sums over all relays, each relay's own health, and whatever else there is."""
    counts = RelayCounts()
    running: Counter[str] = Counter()
    starts = CounterMetricFamily(
        "gateway_relay_starts", "How often each relay was started; more than once: it died.", labels=("relay",)
    )
    delay = GaugeMetricFamily(
        "gateway_routes_delay_seconds", "How long the last route change took to reach each relay.", labels=("relay",)
    )
    for slot, relay in enumerate(relays):
        starts.add_metric((str(slot),), relay.starts)
        if relay.report is not None:
            counts.add(relay.report.counts)
            running.update(relay.report.running)
            delay.add_metric((str(slot),), relay.report.routes_delay_s)
    return render(counts, running, (starts, delay, *extra))
