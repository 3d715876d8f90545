"""Counters of the relays, kept as plain numbers and turned into Prometheus' text when somebody asks.

prometheus_client's own counters lock and look up labels at every step: as dear as all the routing of a request. Plain
numbers can also be sent from one process to another and added up.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from gateway.telemetry.requests import RequestRecord

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_BYTE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOTAL_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_TARGET = ("model", "version")


class Histogram(msgspec.Struct):
    """Counts per bucket, not cumulative, one more than there are bounds; and the sum of all values."""

    counts: list[int]
    total: float = 0.0

    def observe(self, bounds: tuple[float, ...], value: float) -> None:
        """Count a value in the bucket of the first of `bounds` that is not below it."""
        self.counts[bisect_left(bounds, value)] += 1
        self.total += value

    def add(self, other: "Histogram") -> None:
        """Count what another of the same bounds has counted."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class TargetCounts(msgspec.Struct):
    """The numbers of one version of one model. `statuses` counts requests by endpoint, status and outcome."""

    statuses: dict[tuple[str, int, str], int] = {}
    tokens_in: int = 0
    tokens_out: int = 0
    estimated_in: int = 0
    estimated_out: int = 0
    first_byte: Histogram = msgspec.field(default_factory=lambda: Histogram([0] * (len(FIRST_BYTE_BUCKETS_S) + 1)))
    total: Histogram = msgspec.field(default_factory=lambda: Histogram([0] * (len(TOTAL_BUCKETS_S) + 1)))

    def add(self, other: "TargetCounts") -> None:
        """Count what another has counted."""
        for kind, count in other.statuses.items():
            self.statuses[kind] = self.statuses.get(kind, 0) + count
        self.tokens_in += other.tokens_in
        self.tokens_out += other.tokens_out
        self.estimated_in += other.estimated_in
        self.estimated_out += other.estimated_out
        self.first_byte.add(other.first_byte)
        self.total.add(other.total)


class CopyCounter(Protocol):
    """Where copies of requests are counted."""

    def count_copy(self, model: str, version: str, outcome: str) -> None:
        """Count a copy for a version that was `compared`, `failed` or `dropped`."""


class RelayCounts(msgspec.Struct):
    """What a relay has done since it began, by model and version; `copies` by their outcome too.

    Writers are its ledger and its shadows.
    """

    targets: dict[tuple[str, str], TargetCounts] = {}
    copies: dict[tuple[str, str, str], int] = {}

    def count(self, record: RequestRecord, total_s: float) -> None:
        """Count a request that has ended."""
        key = (record.model, record.version)
        target = self.targets.get(key)
        if target is None:
            target = self.targets[key] = TargetCounts()
        kind = (record.path, record.status, record.outcome)
        target.statuses[kind] = target.statuses.get(kind, 0) + 1
        target.total.observe(TOTAL_BUCKETS_S, total_s)
        if record.first_byte_s is not None:
            target.first_byte.observe(FIRST_BYTE_BUCKETS_S, record.first_byte_s)
        if record.is_estimated:
            target.estimated_in += record.tokens_in or 0
            target.estimated_out += record.tokens_out or 0
        else:
            target.tokens_in += record.tokens_in or 0
            target.tokens_out += record.tokens_out or 0

    def count_copy(self, model: str, version: str, outcome: str) -> None:
        """See `CopyCounter`."""
        key = (model, version, outcome)
        self.copies[key] = self.copies.get(key, 0) + 1

    def count_ended(self, model: str, version: str) -> int:
        """Requests to a version that have ended, and copies of some."""
        target = self.targets.get((model, version))
        copies = sum(self.copies.get((model, version, outcome), 0) for outcome in ("compared", "failed"))
        return copies + (0 if target is None else sum(target.statuses.values()))

    def add(self, other: "RelayCounts") -> None:
        """Count what another relay has counted."""
        for key, target in other.targets.items():
            self.targets.setdefault(key, TargetCounts()).add(target)
        for copy, count in other.copies.items():
            self.copies[copy] = self.copies.get(copy, 0) + count


def render(counts: RelayCounts, running: Mapping[str, int], extra: Iterable[Metric] = ()) -> bytes:
    """The text that Prometheus scrapes. `running` are the requests under way by engine address."""
    registry = CollectorRegistry()
    registry.register(_Collected((*_tell(counts, running), *extra)))
    return generate_latest(registry)


class _Collected:
    """Metrics as prometheus_client's registry asks for them."""

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._metrics = metrics

    def collect(self) -> tuple[Metric, ...]:
        return self._metrics


def _tell(counts: RelayCounts, running: Mapping[str, int]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "gateway_requests", "Requests that have ended.", labels=(*_TARGET, "endpoint", "status", "outcome")
    )
    tokens = CounterMetricFamily(
        "gateway_tokens",
        "Tokens. Estimated: of requests of which the engine gave no count.",
        labels=(*_TARGET, "direction", "estimated"),
    )
    first = HistogramMetricFamily("gateway_first_byte_seconds", "Until the answer began.", labels=_TARGET)
    total = HistogramMetricFamily("gateway_request_seconds", "Until the answer ended.", labels=_TARGET)
    for names, target in counts.targets.items():
        for (path, status, outcome), count in target.statuses.items():
            requests.add_metric((*names, path, str(status), outcome), count)
        tokens.add_metric((*names, "in", "false"), target.tokens_in)
        tokens.add_metric((*names, "out", "false"), target.tokens_out)
        tokens.add_metric((*names, "in", "true"), target.estimated_in)
        tokens.add_metric((*names, "out", "true"), target.estimated_out)
        _tell_histogram(first, names, FIRST_BYTE_BUCKETS_S, target.first_byte)
        _tell_histogram(total, names, TOTAL_BUCKETS_S, target.total)
    copies = CounterMetricFamily(
        "gateway_shadow_copies",
        "Copies of requests for a version that is a shadow. Dropped: no room or no engine, or refused unasked.",
        labels=(*_TARGET, "outcome"),
    )
    for copied, count in counts.copies.items():
        copies.add_metric(copied, count)
    gauge = GaugeMetricFamily(
        "gateway_requests_running", "Requests under way, copies for shadows among them.", labels=("address",)
    )
    for address, number in running.items():
        gauge.add_metric((address,), number)
    yield from (requests, tokens, first, total, copies, gauge)


def _tell_histogram(
    family: HistogramMetricFamily, labels: tuple[str, ...], bounds: tuple[float, ...], histogram: Histogram
) -> None:
    buckets, running = [], 0
    for bound, count in zip((*map(str, bounds), "+Inf"), histogram.counts, strict=True):
        running += count
        buckets.append((bound, running))
    family.add_metric(labels, buckets, histogram.total)
