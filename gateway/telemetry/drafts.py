"""What came of guessing ahead: the counts of speculative decoding, and what Prometheus is told of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_TARGET = ("model", "version")


@dataclass(frozen=True, slots=True)
class DraftCounts:
    """Steps of the model before which tokens had been guessed, how many were, and how many of them were right."""

    steps: int = 0
    guessed: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float | None:
        """The fraction of guessed tokens that was right; None before any was guessed."""
        return self.accepted / self.guessed if self.guessed else None

    @property
    def tokens_per_step(self) -> float | None:
        """Tokens that came out of each of these steps, where one comes out of a step without a guess."""
        return 1 + self.accepted / self.steps if self.steps else None

    def __add__(self, other: "DraftCounts") -> "DraftCounts":
        return DraftCounts(self.steps + other.steps, self.guessed + other.guessed, self.accepted + other.accepted)

    def __sub__(self, other: "DraftCounts") -> "DraftCounts":
        return DraftCounts(self.steps - other.steps, self.guessed - other.guessed, self.accepted - other.accepted)

    def to_dict(self) -> dict[str, float | None]:
        """The counts and what follows from them, as plain data."""
        return {
            "steps": self.steps, "guessed": self.guessed, "accepted": self.accepted, "acceptance": self.acceptance,
            "tokens_per_step": self.tokens_per_step,
        }  # fmt: skip


def tell_drafts(counts: Mapping[tuple[str, str], DraftCounts]) -> Iterator[Metric]:
    """The metrics of each model and version that guesses."""
    if not counts:
        return
    counters = {
        "steps": "Steps before which tokens had been guessed.",
        "guessed": "Tokens that were guessed.",
        "accepted": "Guessed tokens that were right.",
    }
    gauges = {
        "acceptance": "Fraction of all guessed tokens that was right.",
        "tokens_per_step": "Tokens that came out of a step with guesses, of all such steps.",
    }
    for name, meaning in counters.items():
        counter = CounterMetricFamily(f"gateway_speculative_{name}", meaning, labels=_TARGET)
        for target, count in counts.items():
            counter.add_metric(target, getattr(count, name))
        yield counter
    for name, meaning in gauges.items():
        gauge = GaugeMetricFamily(f"gateway_speculative_{name}", meaning, labels=_TARGET)
        for target, count in counts.items():
            if (value := getattr(count, name)) is not None:
                gauge.add_metric(target, value)
        yield gauge
