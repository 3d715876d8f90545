import pytest

from gateway.telemetry.samples import Sample
from gateway.traffic.forecast import find_wait_s
from gateway.traffic.inference import fractions
from gateway.traffic.inference.interval import Pair, Strata


def strata(count: int, ours: float, theirs: float) -> Strata:
    return [Pair(Sample(count, ours * count, ours * count, {}), Sample(count, theirs * count, theirs * count, {}))]


def is_worse(found: Strata) -> bool:
    return fractions.compare(found, 0.05).low > 0


def test_what_is_decided_needs_no_wait() -> None:
    assert find_wait_s(strata(10_000, 0.3, 0.1), 60, is_worse) == 0


def test_the_wait_is_what_more_of_the_same_would_take() -> None:
    wait_s = find_wait_s(strata(200, 0.1, 0.07), 60, is_worse)
    assert wait_s is not None
    needed = 200 * (1 + wait_s / 60)
    assert is_worse(strata(round(needed * 1.01), 0.1, 0.07))
    assert not is_worse(strata(round(needed * 0.97), 0.1, 0.07))


def test_who_would_wait_for_ever_is_not_told_how_long() -> None:
    assert find_wait_s(strata(200, 0.1, 0.1), 60, is_worse) is None


def test_only_the_last_stage_grows() -> None:
    [before], [now] = strata(1000, 0.1, 0.1), strata(10, 0.1, 0.1)
    wait_s = find_wait_s([before, now], 60, lambda found: sum(pair.candidate.count for pair in found) >= 1100)
    assert wait_s == pytest.approx(60 * 9, rel=0.05)


def test_quantiles_have_as_many_values_as_their_buckets() -> None:
    pair = Pair(Sample(10, 20.0, 40.0, {3: 4, 9: 6}), Sample(10, 20.0, 40.0, {3: 6, 9: 4}))
    seen: list[tuple[int, int]] = []

    def note(found: Strata) -> bool:
        seen.append((found[0][0].count, sum(found[0][0].buckets.values())))
        return found[0][0].count > 75

    assert find_wait_s([pair], 10, note) == pytest.approx(65, abs=1)
    assert all(count == inside for count, inside in seen)
