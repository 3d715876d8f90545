from gateway.telemetry.drafts import DraftCounts, tell_drafts
from gateway.telemetry.metrics import RelayCounts, render


def test_rates_follow_from_counts() -> None:
    counts = DraftCounts(steps=10, guessed=40, accepted=12)
    assert (counts.acceptance, counts.tokens_per_step) == (0.3, 2.2)
    assert counts.to_dict()["acceptance"] == 0.3
    assert (DraftCounts().acceptance, DraftCounts().tokens_per_step) == (None, None)


def test_counts_add_up_and_differ() -> None:
    assert DraftCounts(1, 4, 2) + DraftCounts(2, 8, 3) == DraftCounts(3, 12, 5)
    assert DraftCounts(3, 12, 5) - DraftCounts(1, 4, 2) == DraftCounts(2, 8, 3)


def test_each_version_that_guesses_is_told() -> None:
    counts = {("shapes", "v1"): DraftCounts(10, 40, 12), ("shapes", "v2"): DraftCounts()}
    text = render(RelayCounts(), {}, tell_drafts(counts)).decode()
    labels = '{model="shapes",version="v1"}'
    for line in ("steps_total%s 10.0", "guessed_total%s 40.0", "accepted_total%s 12.0", "acceptance%s 0.3",
                 "tokens_per_step%s 2.2"):  # fmt: skip
        assert f"gateway_speculative_{line % labels}\n" in text
    assert 'steps_total{model="shapes",version="v2"} 0.0' in text
    assert 'acceptance{model="shapes",version="v2"}' not in text, "nothing was guessed yet"


def test_where_nobody_guesses_there_is_nothing_to_tell() -> None:
    assert list(tell_drafts({})) == []
