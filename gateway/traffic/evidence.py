"""What a request tells of its version, as counts that add up. Pure.

A user counts once in a stage, by his first request, and once by the first that streams: his requests are like each
other, and to count them all would pass for more evidence than there is.
"""

import math
from collections.abc import Iterator

from gateway.state import Entry, First, Value
from gateway.telemetry.observations import Copied, Observation
from gateway.telemetry.samples import TIMES, Metric, Sample, find_bucket

REQUEST_GROUP, STREAM_GROUP, COPY_GROUP = "request", "stream", "copy"
_STREAM_METRICS = (Metric.TTFT_S, Metric.ITL_S)
_LIMITED, _REFUSED = "length", "content_filter"


def write_key(caller: str, request_id: str) -> str:
    """What a request is remembered by: ids are the clients' own, and whoever uses another's only has a second one."""
    return f"{caller}/{request_id}"  # no name of a caller has a slash


def remember(observation: Observation) -> tuple[str, Entry]:
    """What is remembered of a request for feedback on it, and by what."""
    entry = Entry(observation.model, observation.version, observation.stage, observation.unit, observation.is_own)
    return write_key(observation.caller, observation.request_id), entry


def list_values(observation: Observation, cost: float | None) -> Iterator[tuple[Metric, float]]:
    """What can be measured of a request; nothing of one that ended by the client's own doing."""
    if observation.did_fail is None:
        return
    yield Metric.ERROR_RATE, float(observation.did_fail)
    if observation.did_fail:
        return
    known = {
        Metric.TTFT_S: observation.ttft_s,
        Metric.ITL_S: observation.itl_s,
        Metric.TOTAL_S: observation.total_s,
        Metric.TOKENS_IN: observation.tokens_in,
        Metric.TOKENS_OUT: observation.tokens_out,
        Metric.COST: cost,
    }
    for metric, value in known.items():
        if value is not None:
            yield metric, float(value)
    if observation.finish:
        yield Metric.LENGTH_STOPS, float(observation.finish == _LIMITED)
        yield Metric.REFUSALS, float(observation.finish == _REFUSED)


def list_firsts(observation: Observation, values: list[tuple[Metric, float]]) -> Iterator[First]:
    """What counts if it is the user's first; nothing of a request that is not of its version's own users."""
    if not observation.is_own:
        return
    for group, is_stream in ((REQUEST_GROUP, False), (STREAM_GROUP, True)):
        own = [to_value(metric, value) for metric, value in values if (metric in _STREAM_METRICS) == is_stream]
        if own:
            yield First(observation.stage, observation.version, group, observation.unit, own)


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


def add(sums: dict[tuple[int, str, str], Sample], observation: Observation, values: list[tuple[Metric, float]]) -> None:
    """Count a request, whoever's it is."""
    for metric, value in values:
        key = (observation.stage, observation.version, str(metric))
        sample = sums.get(key)
        if sample is None:
            sample = sums[key] = Sample()
        sample.add(value, has_buckets=metric in TIMES)


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
