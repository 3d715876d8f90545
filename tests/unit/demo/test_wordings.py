"""The sentences: every gap has a known name, so that no question can fail while training."""

import string

from gateway.demo.wordings import KEPT_BACK, TRAINED

GAPS = {"it", "other", "kind", "colour", "side", "a"}


def test_every_gap_is_one_that_questions_fill() -> None:
    for table in (TRAINED, KEPT_BACK):
        for wording in (wording for wordings in table.values() for wording in wordings):
            assert {gap for _, gap, _, _ in string.Formatter().parse(wording) if gap} <= GAPS


def test_kept_back_wordings_fill_the_same_gaps_as_the_trained_ones() -> None:
    for name, wordings in KEPT_BACK.items():
        trained = {gap for wording in TRAINED[name] for _, gap, _, _ in string.Formatter().parse(wording) if gap}
        kept = {gap for wording in wordings for _, gap, _, _ in string.Formatter().parse(wording) if gap}
        assert kept <= trained


def test_no_wording_is_listed_twice() -> None:
    for wordings in TRAINED.values():
        assert len(set(wordings)) == len(wordings)
