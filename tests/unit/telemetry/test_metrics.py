from collections.abc import Mapping

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gateway.telemetry.metrics import CONTENT_TYPE, FIRST_BYTE_BUCKETS_S, RelayCounts, render
from gateway.telemetry.requests import RequestRecord


def done(**changes: object) -> RequestRecord:
    fields: dict[str, object] = {
        "request_id": "id", "path": "/v1/x", "started_s": 0.0, "model": "shapes", "version": "v1", "replica": "v1-0",
        "status": 200, "outcome": "done", "first_byte_s": 0.02, "tokens_in": 7, "tokens_out": 3,
    }  # fmt: skip
    return RequestRecord(**(fields | changes))  # type: ignore[arg-type]


def count(*records: RequestRecord, running: Mapping[str, int] | None = None, total_s: float = 0.2) -> list[Sample]:
    """What Prometheus reads after `records`."""
    counts = RelayCounts()
    for record in records:
        counts.count(record, total_s)
    return read(render(counts, running or {}))


def read(rendered: bytes) -> list[Sample]:
    text = rendered.decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def values(samples: list[Sample], name: str, **labels: str) -> dict[str, float]:
    """Samples of a name that have these labels, by the values of their other labels in order of the names."""
    return {
        ",".join(value for label, value in sorted(sample.labels.items()) if label not in labels): sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def test_requests_are_counted_by_target_endpoint_status_and_outcome() -> None:
    samples = count(
        done(), done(), done(version="v2"), done(status=499, outcome="hung_up"), done(status=503, outcome="no_replica")
    )
    assert values(samples, "gateway_requests_total", model="shapes", endpoint="/v1/x") == {
        "done,200,v1": 2, "done,200,v2": 1, "hung_up,499,v1": 1, "no_replica,503,v1": 1
    }  # fmt: skip


def test_a_request_that_got_nowhere_is_counted_without_a_target() -> None:
    samples = count(done(model="", version="", status=404, outcome="model_not_found"))
    assert values(samples, "gateway_requests_total", model="", version="") == {"/v1/x,model_not_found,404": 1}


def test_tokens_are_counted_and_estimated_ones_apart() -> None:
    cut = done(status=499, outcome="hung_up", tokens_in=9, tokens_out=5, is_estimated=True)
    samples = count(done(), done(tokens_in=1, tokens_out=1), cut, done(tokens_in=None, tokens_out=None))
    assert values(samples, "gateway_tokens_total", model="shapes", version="v1") == {
        "in,false": 8, "in,true": 9, "out,false": 4, "out,true": 5
    }  # fmt: skip


def test_histograms_are_cumulative_and_end_with_everything() -> None:
    records = [done(first_byte_s=seconds) for seconds in (0.001, 0.005, 0.02, 0.02, 3.0, 500.0)]
    buckets = values(
        count(*records), "gateway_first_byte_seconds_bucket", model="shapes", version="v1"
    )  # by their upper bound
    assert [float(bound) for bound in buckets] == [*FIRST_BYTE_BUCKETS_S, float("inf")]
    found = list(buckets.values())
    assert found == sorted(found)
    assert (buckets["0.005"], buckets["0.01"], buckets["0.025"], buckets["5.0"], buckets["60.0"]) == (2, 2, 4, 5, 5)
    assert buckets["+Inf"] == 6


def test_a_histogram_tells_count_and_sum() -> None:
    samples = count(done(), done(first_byte_s=None), total_s=0.25)
    assert values(samples, "gateway_request_seconds_count") == {"shapes,v1": 2}
    assert values(samples, "gateway_request_seconds_sum") == {"shapes,v1": 0.5}
    assert values(samples, "gateway_first_byte_seconds_count") == {"shapes,v1": 1}
    assert values(samples, "gateway_first_byte_seconds_sum")["shapes,v1"] == pytest.approx(0.02)


def test_copies_are_counted_apart_from_requests() -> None:
    counts = RelayCounts()
    counts.count(done(), 0.1)
    for outcome in ("compared", "failed", "dropped", "compared"):
        counts.count_copy("shapes", "v1", outcome)
    samples = read(render(counts, {}))
    assert values(samples, "gateway_shadow_copies_total") == {
        "shapes,compared,v1": 2, "shapes,failed,v1": 1, "shapes,dropped,v1": 1
    }  # fmt: skip
    assert values(samples, "gateway_requests_total") == {"/v1/x,shapes,done,200,v1": 1}
    assert counts.count_ended("shapes", "v1") == 4, "what was dropped kept no engine awake"


def test_what_is_running_is_told_by_address() -> None:
    assert b"gateway_requests_running{" not in render(RelayCounts(), {})
    rendered = render(RelayCounts(), {"unix:///run/0.sock": 3})
    assert b'gateway_requests_running{address="unix:///run/0.sock"} 3.0\n' in rendered


def test_the_counts_of_two_relays_add_up_to_those_of_one_that_did_it_all() -> None:
    records = [
        done(first_byte_s=0.5),
        done(version="v2", first_byte_s=3.0),
        done(first_byte_s=None, status=499, tokens_out=5, is_estimated=True),
    ]
    one, other, both = RelayCounts(), RelayCounts(), RelayCounts()
    for number, record in enumerate(records * 3):
        (one if number % 2 else other).count(record, number / 8)
        both.count(record, number / 8)
    one.count_copy("m", "v2", "compared")
    other.count_copy("m", "v2", "compared")
    other.count_copy("m", "v2", "dropped")
    for outcome in ("compared", "compared", "dropped"):
        both.count_copy("m", "v2", outcome)
    one.add(other)
    assert sorted(map(repr, read(render(one, {})))) == sorted(map(repr, read(render(both, {}))))


def test_counts_cross_from_one_process_to_another() -> None:
    counts = RelayCounts()
    counts.count(done(), 0.2)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(counts), type=RelayCounts) == counts


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "ü{}", 'model="x"} 1'])
def test_label_values_are_escaped(name: str) -> None:
    [sample] = [sample for sample in count(done(model=name)) if sample.name == "gateway_requests_total"]
    assert sample.labels["model"] == name


def test_it_is_the_text_format_that_the_content_type_says() -> None:
    text = render(RelayCounts(), {}).decode()
    assert "version=0.0.4" in CONTENT_TYPE
    assert "# TYPE gateway_requests_total counter\n" in text
    assert "# TYPE gateway_request_seconds histogram\n" in text
    assert "# EOF" not in text
    assert text.endswith("\n")
