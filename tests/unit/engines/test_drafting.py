from gateway.engines.drafting import WINDOW_TOKENS, DraftWatch, sum_drafts
from gateway.engines.engine import EngineState, EngineStatus
from gateway.telemetry.drafts import DraftCounts


def counts(guessed: int, accepted: int = 0) -> DraftCounts:
    return DraftCounts(guessed // 4, guessed, accepted)


def test_only_news_is_news() -> None:
    watch = DraftWatch()
    assert not watch.take(None)
    assert not watch.take(DraftCounts())
    assert watch.take(counts(8, 2))
    assert not watch.take(counts(8, 2))
    assert watch.total == counts(8, 2)


def test_what_was_counted_in_earlier_lives_stays() -> None:
    watch = DraftWatch(counts(4, 4))
    watch.take(counts(8, 2))
    watch.begin()
    assert watch.total == counts(12, 6)
    watch.take(counts(4, 1))
    assert watch.total == counts(16, 7)
    watch.inherit(counts(4, 1))
    assert watch.total == counts(20, 8)


def test_few_guesses_say_nothing_yet() -> None:
    watch = DraftWatch(counts(WINDOW_TOKENS))
    watch.take(counts(WINDOW_TOKENS - 4))
    assert watch.find_recent() is None
    watch.take(counts(WINDOW_TOKENS, 7))
    assert watch.find_recent() == counts(WINDOW_TOKENS, 7)


def test_the_latest_guesses_count_and_old_ones_do_not() -> None:
    watch = DraftWatch()
    for step in range(1, 11):  # all right
        watch.take(counts(step * 1000, step * 1000))
    for step in range(1, 6):  # all wrong
        watch.take(counts(10_000 + step * 1000, 10_000))
    assert watch.find_recent() == counts(5000, 0)


def test_a_new_life_is_judged_by_itself() -> None:
    watch = DraftWatch()
    watch.take(counts(WINDOW_TOKENS))
    watch.begin()
    watch.take(counts(100))
    assert watch.find_recent() is None


def test_engines_of_a_version_add_up() -> None:
    def status(version: str, drafts: DraftCounts | None) -> EngineStatus:
        return EngineStatus(f"m:{version}#0", "m", version, EngineState.READY, 0.0, drafts=drafts)

    found = sum_drafts([status("a", counts(4)), status("a", counts(8)), status("b", None), status("c", DraftCounts())])
    assert found == {("m", "a"): counts(12), ("m", "c"): DraftCounts()}


def test_it_is_said_once_that_guesses_are_mostly_wrong() -> None:
    watch = DraftWatch()
    watch.take(counts(4000, 100))
    assert watch.judge(0.4) is None, "too few to tell"
    watch.take(counts(8000, 1000))
    assert watch.judge(None) is None
    assert watch.judge(0.125) is None, "just enough"
    assert watch.judge(0.4) == "12.5% of the last 8,000 guessed tokens were right, and min_acceptance is 40.0%"
    assert watch.judge(0.4) is None
