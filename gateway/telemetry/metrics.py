"""Counters of the relay, kept as plain numbers and turned into Prometheus' text when somebody asks.

prometheus_client's own counters lock and look up labels at every step: as dear as all the routing of a request.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from gateway.telemetry.requests import RequestRecord

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_BYTE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOTAL_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_TARGET = ("model", "version")


class _Histogram:
    """Counts per bucket and their sum. Not cumulative until told."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def tell(self, family: HistogramMetricFamily, labels: tuple[str, ...]) -> None:
        buckets, running = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            buckets.append((bound, running))
        family.add_metric(labels, buckets, self.total)


class _Target:
    """The numbers of one version of one model."""

    __slots__ = ("estimated_out", "first_byte", "statuses", "tokens_in", "tokens_out", "total")

    def __init__(self) -> None:
        self.statuses: dict[tuple[str, int, str], int] = {}
        self.tokens_in = self.tokens_out = self.estimated_out = 0
        self.first_byte = _Histogram(FIRST_BYTE_BUCKETS_S)
        self.total = _Histogram(TOTAL_BUCKETS_S)


class RelayMetrics:
    """What the relay has done. `running` gives the requests under way by engine address, read when somebody asks."""

    def __init__(self, running: Callable[[], Mapping[str, int]]) -> None:
        self._targets: dict[tuple[str, str], _Target] = {}
        self._running = running

    def count(self, record: RequestRecord, total_s: float) -> None:
        """Count a request that has ended."""
        key = (record.model, record.version)
        target = self._targets.get(key)
        if target is None:
            target = self._targets[key] = _Target()
        kind = (record.path, record.status, record.outcome)
        target.statuses[kind] = target.statuses.get(kind, 0) + 1
        target.total.observe(total_s)
        if record.first_byte_s is not None:
            target.first_byte.observe(record.first_byte_s)
        if record.tokens_in:
            target.tokens_in += record.tokens_in
        if record.tokens_out:
            if record.is_estimated:
                target.estimated_out += record.tokens_out
            else:
                target.tokens_out += record.tokens_out

    def collect(self) -> Iterator[Metric]:
        """Every metric, as prometheus_client's registry asks for them."""
        requests = CounterMetricFamily(
            "gateway_requests", "Requests that have ended.", labels=(*_TARGET, "endpoint", "status", "outcome")
        )
        tokens = CounterMetricFamily(
            "gateway_tokens",
            "Tokens. Estimated: events of streams that ended before the engine gave its count.",
            labels=(*_TARGET, "direction", "estimated"),
        )
        first = HistogramMetricFamily("gateway_first_byte_seconds", "Until the answer began.", labels=_TARGET)
        total = HistogramMetricFamily("gateway_request_seconds", "Until the answer ended.", labels=_TARGET)
        for names, target in self._targets.items():
            for (path, status, outcome), count in target.statuses.items():
                requests.add_metric((*names, path, str(status), outcome), count)
            tokens.add_metric((*names, "in", "false"), target.tokens_in)
            tokens.add_metric((*names, "out", "false"), target.tokens_out)
            tokens.add_metric((*names, "out", "true"), target.estimated_out)
            target.first_byte.tell(first, names)
            target.total.tell(total, names)
        running = GaugeMetricFamily("gateway_requests_running", "Requests under way.", labels=("address",))
        for address, count in self._running().items():
            running.add_metric((address,), count)
        yield from (requests, tokens, first, total, running)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)
