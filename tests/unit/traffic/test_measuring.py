import pytest

from gateway.state import REQUESTS, USERS, Evidence
from gateway.telemetry.samples import Sample
from gateway.traffic.measuring import count_users, find_past, find_strata, is_skewed


def sample(count: int, total: float = 0.0) -> Sample:
    return Sample(count, total, total, {})


FIRST: Evidence = {("v1", USERS, "error_rate"): sample(90, 1), ("v2", USERS, "error_rate"): sample(10, 2)}
SECOND: Evidence = {("v1", USERS, "error_rate"): sample(50), ("v2", USERS, "error_rate"): sample(50, 5),
                    ("v2", REQUESTS, "error_rate"): sample(700, 9), ("v1", USERS, "success"): sample(3, 3)}  # fmt: skip


def test_pairs_are_of_one_step_each_and_of_users() -> None:
    past = {"error_rate": (sample(10, 2), sample(90, 1))}
    strata = find_strata([FIRST, SECOND], [{}, past], "v2", "v1", ["error_rate", "success", "ttft_s"])
    assert strata.keys() == {"error_rate", "success"}, "what nobody has measured is not there"
    first, second = strata["error_rate"]
    assert (first.candidate.total, first.baseline.count, first.before) == (2, 90, None)
    assert (second.candidate, second.baseline, second.before) == (sample(50, 5), sample(50), past["error_rate"])
    assert [pair.candidate.count for pair in strata["success"]] == [0, 0]


def test_what_is_known_goes_on_to_the_next_step() -> None:
    strata = find_strata([FIRST, SECOND], [{}, {}], "v2", "v1", ["error_rate"])
    assert find_past(strata) == {"error_rate": (sample(60, 7), sample(140, 1))}
    assert FIRST["v2", USERS, "error_rate"] == sample(10, 2), "nothing is added to what was measured"


def test_users_are_those_whose_request_could_be_judged() -> None:
    assert count_users(SECOND) == {"v1": 50, "v2": 50}


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"), [(100, 900, False), (115, 885, False), (160, 840, True), (0, 0, False)]
)
def test_versions_without_their_users_are_noticed(ours: int, theirs: int, expected: bool) -> None:
    evidence = {("v1", USERS, "error_rate"): sample(theirs), ("v2", USERS, "error_rate"): sample(ours)}
    assert is_skewed(evidence, {"v1": 0.9, "v2": 0.1}) is expected
