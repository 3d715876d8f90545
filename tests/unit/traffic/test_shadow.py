import uuid

import pytest

from gateway.traffic.shadow import Reply, Score, Shadow, compare, compare_scores


@pytest.mark.parametrize("percent", [0.0, 1.0, 30.0, 100.0])
def test_every_request_is_as_likely_to_be_copied_as_any_other(percent: float) -> None:
    shadow = Shadow("v2", percent)
    taken = sum(shadow.takes(uuid.uuid4().hex) for _ in range(20_000))
    assert taken == pytest.approx(200 * percent, abs=300 if 0 < percent < 100 else 0)
    assert shadow.takes("x") == shadow.takes("x")


@pytest.mark.parametrize("form", ["req-{:04}", "user{:06}", "{}"])
def test_ids_that_clients_have_numbered_are_spread_as_well(form: str) -> None:
    assert sum(Shadow("v2", 10).takes(form.format(number)) for number in range(1000)) == pytest.approx(100, abs=19)


def test_numbers_of_both_and_the_change_are_told() -> None:
    primary = Reply(False, "a", tokens_out=10, ttft_s=0.1, total_s=2.0)
    shadow = Reply(False, "b", tokens_out=4, ttft_s=0.3, total_s=1.0)
    found = dict(compare(primary, shadow))
    assert found == pytest.approx({
        "primary/failed": 0, "shadow/failed": 0, "change/failed": 0,
        "primary/tokens_out": 10, "shadow/tokens_out": 4, "change/tokens_out": -6,
        "primary/ttft_s": 0.1, "shadow/ttft_s": 0.3, "change/ttft_s": 0.2,
        "primary/total_s": 2, "shadow/total_s": 1, "change/total_s": -1,
        "primary/tokens_per_s": 5, "shadow/tokens_per_s": 4, "change/tokens_per_s": -1,
    })  # fmt: skip


def test_an_answer_that_failed_is_compared_by_that_alone() -> None:
    fine, broken = Reply(False, "a", 10, 0.1, 2.0), Reply(True)
    assert dict(compare(fine, broken, is_greedy=True)) == {
        "primary/failed": 0, "shadow/failed": 1, "change/failed": 1,
    }  # fmt: skip
    assert dict(compare(broken, fine, is_greedy=True))["change/failed"] == -1


def test_what_one_side_does_not_say_is_left_out() -> None:
    found = dict(compare(Reply(False, "a", 10, None, 2.0), Reply(False, "b", None, 0.1, 0.0)))
    assert found.keys() == {
        f"{side}/{name}" for side in ("primary", "shadow", "change") for name in ("failed", "total_s")
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "tokens", "expected"),
    [
        ("abc", "abc", None, {"same_answer": 1, "agreement": 1}),
        ("abcd", "abx", ([1, 2], [1, 3]), {"same_answer": 0, "agreement": 0.5, "first_difference": 1}),
        ("ab", "abcd", ([1], [1, 2]), {"same_answer": 0, "agreement": 0.5, "first_difference": 1}),
        ("a", "b", None, {"same_answer": 0, "agreement": 0}),
        ("", "", None, {"same_answer": 1, "agreement": 1}),
        ("", "a", None, {"same_answer": 0, "agreement": 0}),
        (None, "a", None, {}),
        ("a", None, None, {}),
    ],
)
def test_greedy_answers_are_the_same_up_to_where_they_differ(
    ours: str | None, theirs: str | None, tokens: tuple[list[int], list[int]] | None, expected: dict[str, float]
) -> None:
    found = dict(compare(Reply(False, ours), Reply(False, theirs), is_greedy=True, tokens=tokens))
    assert {name: value for name, value in found.items() if "/" not in name} == expected
    assert not [name for name in dict(compare(Reply(False, ours), Reply(False, theirs))) if "/" not in name]


def test_scores_tell_how_much_likelier_a_version_finds_its_own_answer() -> None:
    found = dict(compare_scores(Score(by_primary=-0.5, by_shadow=-2.0), Score(by_primary=-3.0, by_shadow=-1.0)))
    assert found == {"gap_of_primary": 1.5, "gap_of_shadow": 2.0}
    assert dict(compare_scores(None, None)) == {}
