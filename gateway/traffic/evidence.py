"""What a request tells of its version, as counts that add up. Pure.

A user counts once in a stage, by his first request, and once by the first that streams: his requests are like each
other, and to count them all would pass for more evidence than there is.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter

from gateway.state import Entry, First, Value
from gateway.telemetry.observations import Copied, Observation
from gateway.telemetry.samples import TIMES, Metric, Sample, find_bucket

REQUEST_GROUP, STREAM_GROUP, COPY_GROUP = "request", "stream", "copy"
_STREAM_METRICS = (Metric.TTFT_S, Metric.ITL_S)
_READ: dict[Metric, Callable[[Observation], float | None]] = {
    metric: attrgetter(metric) for metric in (*_STREAM_METRICS, Metric.TOTAL_S, Metric.TOKENS_IN, Metric.TOKENS_OUT)
}
"""Observations call them so too."""

_LIMITED, _REFUSED = "length", "content_filter"

Prices = tuple[float, float]
"""Of a million tokens, of the prompt and of the answer."""


def write_key(caller: str, request_id: str) -> str:
    """What a request is remembered by: ids are the clients' own, and whoever uses another's only has a second one."""
    return f"{caller}/{request_id}"  # no name of a caller has a slash


def remember(observation: Observation) -> tuple[str, Entry]:
    """What is remembered of a request for feedback on it, and by what."""
    entry = Entry(observation.model, observation.version, observation.stage, observation.unit, observation.is_own)
    return write_key(observation.caller, observation.request_id), entry


def list_values(observations: Iterable[Observation], prices: Prices | None = None) -> dict[Metric, list[float]]:
    """What can be measured of requests to one version; nothing of those that ended by the client's own doing."""
    judged = [one for one in observations if one.did_fail is not None]
    done = [one for one in judged if not one.did_fail]
    found: dict[Metric, list[float]] = {Metric.ERROR_RATE: [float(one.did_fail or False) for one in judged]}
    for metric, read in _READ.items():
        found[metric] = [value for value in map(read, done) if value is not None]
    if prices is not None:
        costs = (find_cost(one, *prices) for one in done)
        found[Metric.COST] = [cost for cost in costs if cost is not None]
    finishes = [one.finish for one in done if one.finish]
    found[Metric.LENGTH_STOPS] = [float(finish == _LIMITED) for finish in finishes]
    found[Metric.REFUSALS] = [float(finish == _REFUSED) for finish in finishes]
    return {metric: values for metric, values in found.items() if values}


def list_groups(observation: Observation) -> tuple[str, ...]:
    """What a request may be its user's first of; nothing where it is not of its version's own users."""
    if not observation.is_own or observation.did_fail is None:
        return ()
    is_stream = not observation.did_fail and observation.ttft_s is not None
    return (REQUEST_GROUP, STREAM_GROUP) if is_stream else (REQUEST_GROUP,)


def write_first(observation: Observation, group: str, prices: Prices | None) -> First:
    """What counts if the request is its user's first of a group."""
    is_stream = group == STREAM_GROUP
    values = [
        to_value(metric, value)
        for metric, [value] in list_values([observation], prices).items()
        if (metric in _STREAM_METRICS) == is_stream
    ]
    return First(observation.stage, observation.version, group, observation.unit, values)


def list_copy_firsts(copied: Copied) -> Iterator[First]:
    """What a copy counts if it is the user's first: for the version that it is compared with."""
    if copied.values:
        values = [Value(metric, value) for metric, value in copied.values.items()]
        yield First(copied.stage, copied.primary, COPY_GROUP, copied.unit, values)


def add_copy(sums: dict[tuple[int, str, str], Sample], copied: Copied) -> None:
    """Count a copy, whoever's it is."""
    for metric, value in copied.values.items():
        sums.setdefault((copied.stage, copied.primary, metric), Sample()).add(value, has_buckets=False)


def to_value(metric: str, value: float) -> Value:
    """A value, with its bucket where quantiles are asked for."""
    return Value(metric, value, find_bucket(value) if metric in TIMES else None)


def add(
    sums: dict[tuple[int, str, str], Sample], observations: Sequence[Observation], prices: Prices | None = None
) -> None:
    """Count requests to one version in one stage, whosever they are."""
    for metric, values in list_values(observations, prices).items():
        key = (observations[0].stage, observations[0].version, str(metric))
        sums.setdefault(key, Sample()).add_all(values, has_buckets=metric in TIMES)


def give_group(metric: str) -> str:
    """The group of feedback by a metric."""
    return f"feedback:{metric}"


def find_cost(observation: Observation, input_price: float, output_price: float) -> float | None:
    """Of its tokens, by prices of a million; None where they are not known."""
    if observation.tokens_in is None or observation.tokens_out is None:
        return None
    return (observation.tokens_in * input_price + observation.tokens_out * output_price) / 1e6


def is_number(value: float, low: float, high: float) -> bool:
    """True for a number that can be a judgement on a scale."""
    return math.isfinite(value) and low <= value <= high
