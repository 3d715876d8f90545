"""Shadow traffic: which requests are copied, and how the answer to a copy compares with the one that the client got.

Nobody judges the answers: they are compared with each other, by words and by numbers. Pure.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

_POINTS = 2**32
_POINT_BYTES = 4  # of _POINTS
_USE = b"shadow"
"""Says what the hash is for: who is copied has nothing to do with anything else that is made of a request's id."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """The version that gets copies of `percent` of a model's requests. `stage` names the time in which they compare.

    A copy is sent only to an engine with fewer than `concurrency` requests under way.
    """

    version: str
    percent: float
    stage: int = 0
    concurrency: int = 4
    cross_score: bool = False
    keep_texts: bool = False

    def takes(self, request_id: str) -> bool:
        """True if this request is to be copied: every one as likely as any other, however clients number theirs."""
        digest = hashlib.blake2b(request_id.encode(), digest_size=_POINT_BYTES, person=_USE).digest()
        return int.from_bytes(digest, "big") < self.percent / 100 * _POINTS


@dataclass(frozen=True, slots=True)
class Reply:
    """One of two answers to the same request. Durations in seconds, from when the engine was asked.

    `text` is all that it says, None where that cannot be read. `ttft_s` is that of a stream; `tokens_out` is None where
    the engine has not said it.
    """

    is_failed: bool
    text: str | None = None
    tokens_out: int | None = None
    ttft_s: float | None = None
    total_s: float | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Over the whole answer: in a short one the last tokens come all at once."""
        return self.tokens_out / self.total_s if self.tokens_out and self.total_s else None


@dataclass(frozen=True, slots=True)
class Score:
    """How likely the engine of each version finds an answer: the mean logarithm of the probability of its tokens."""

    by_primary: float
    by_shadow: float


NUMBERS = ("failed", "tokens_out", "ttft_s", "total_s", "tokens_per_s")
"""What is told of both answers, and of the change from the client's to the copy's."""

SAME, AGREEMENT, FIRST_DIFFERENCE = "same_answer", "agreement", "first_difference"
GAP_OF_PRIMARY, GAP_OF_SHADOW = "gap_of_primary", "gap_of_shadow"
FRACTIONS = (SAME, AGREEMENT)


def write_metric(side: str, number: str) -> str:
    """What a number is called in evidence; `side` is `primary`, `shadow` or `change`."""
    return f"{side}/{number}"


def compare(
    primary: Reply, shadow: Reply, *, is_greedy: bool = False, tokens: tuple[Sequence[int], Sequence[int]] | None = None
) -> Iterator[tuple[str, float]]:
    """What comes of a copy, by metric. `tokens` are those of both answers, where that is known.

    Only answers that have both come are compared by more than whether they failed, and by their words where both
    `is_greedy`: others differ anyway.
    """
    pairs: dict[str, tuple[float | None, float | None]] = {"failed": (primary.is_failed, shadow.is_failed)}
    if not primary.is_failed and not shadow.is_failed:
        pairs |= {name: (getattr(primary, name), getattr(shadow, name)) for name in NUMBERS[1:]}
        if is_greedy and primary.text is not None and shadow.text is not None:
            yield from _compare_texts(primary.text, shadow.text)
            if tokens is not None and primary.text != shadow.text:
                yield FIRST_DIFFERENCE, float(_count_common(*tokens))
    for name, (ours, theirs) in pairs.items():
        if ours is not None and theirs is not None:
            yield write_metric("primary", name), float(ours)
            yield write_metric("shadow", name), float(theirs)
            yield write_metric("change", name), float(theirs) - float(ours)


def compare_scores(of_primary: Score | None, of_shadow: Score | None) -> Iterator[tuple[str, float]]:
    """By how much likelier, in nats a token, the version that gave an answer finds it than the other one does.

    Over answers that were sampled at temperature 1 the means are near the divergences of either version from the other,
    by token (S. Kullback, R. Leibler, "On information and sufficiency", Ann. Math. Stat. 22(1), 1951): but each answer
    weighs the same, however long, and the token that ends it is not scored.
    """
    if of_primary is not None:
        yield GAP_OF_PRIMARY, of_primary.by_primary - of_primary.by_shadow
    if of_shadow is not None:
        yield GAP_OF_SHADOW, of_shadow.by_shadow - of_shadow.by_primary


def _compare_texts(ours: str, theirs: str) -> Iterator[tuple[str, float]]:
    longest = max(len(ours), len(theirs))
    yield SAME, float(ours == theirs)
    yield AGREEMENT, _count_common(ours, theirs) / longest if longest else 1.0


def _count_common(ours: Sequence[object], theirs: Sequence[object]) -> int:
    """With how many of the same both begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
