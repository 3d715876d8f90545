import math
import random

from gateway.traffic.inference import sample_ratio

SHARES = {"v1": 0.9, "v2": 0.1, "idle": 0.0}


def test_the_bet_is_fair_if_the_shares_are_true() -> None:
    for counts in ({}, {"v1": 5}, {"v1": 90, "v2": 30}):
        now = sample_ratio.log_bet(counts, SHARES)
        expected = sum(
            share * math.exp(sample_ratio.log_bet({**counts, name: counts.get(name, 0) + 1}, SHARES) - now)
            for name, share in SHARES.items()
            if share
        )
        assert abs(expected - 1) < 1e-9


def test_users_that_get_lost_are_missed() -> None:
    assert sample_ratio.log_bet({"v1": 9000, "v2": 1000}, SHARES) < 0
    assert sample_ratio.log_bet({"v1": 9100, "v2": 800}, SHARES) > math.log(1000)
    assert sample_ratio.log_bet({"v1": 200, "v2": 0}, SHARES) > math.log(100)


def test_looked_at_after_every_user_it_errs_no_more_often_than_it_says() -> None:
    luck = random.Random(8)
    wrong = 0
    for _ in range(200):
        counts = {"v1": 0, "v2": 0}
        for _ in range(1000):
            counts["v1" if luck.random() < 0.9 else "v2"] += 1
            if sample_ratio.log_bet(counts, SHARES) >= math.log(1 / 0.1):
                wrong += 1
                break
    assert wrong <= 20
