"""What relays tell of requests that have ended: of each that can be compared, and the sums that are billed."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from gateway.telemetry.requests import RequestRecord, Settled

FAILED_FROM = 500
"""Statuses of failures that are not the client's; a broken stream, which has begun with 200, is one as well."""


class Observation(msgspec.Struct, array_like=True, frozen=True):
    """One request that has ended, to a model of which versions are compared. Durations in seconds.

    `unit` stands for the user, who is one of the version's if it `is_own`. `did_fail` is None where that cannot be
    said: the client made a mistake or hung up. `caller` is the name of the key that was shown. `finish` is why the
    answer ended, in the words of OpenAI's API.
    """

    request_id: str
    model: str
    version: str
    stage: int
    unit: int
    is_own: bool
    did_fail: bool | None
    caller: str = ""
    ttft_s: float | None = None
    itl_s: float | None = None
    total_s: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish: str = ""


class Usage(msgspec.Struct, array_like=True):
    """What one caller has used of one version, on one `day` (UTC) where it is kept.

    `estimated` tokens are those that the engine has not counted.
    """

    caller: str
    model: str
    version: str
    requests: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    estimated_in: int = 0
    estimated_out: int = 0
    cost: float = 0.0
    day: str = ""

    def add(self, other: "Usage") -> None:
        """What another says of the same."""
        for name in ("requests", "failed", "tokens_in", "tokens_out", "estimated_in", "estimated_out", "cost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def count(self, record: RequestRecord) -> None:
        """One request more."""
        self.requests += 1
        self.failed += is_failed(record)
        if record.is_estimated:
            self.estimated_in += record.tokens_in or 0
            self.estimated_out += record.tokens_out or 0
        else:
            self.tokens_in += record.tokens_in or 0
            self.tokens_out += record.tokens_out or 0


class Texts(msgspec.Struct, frozen=True):
    """What was asked, and what both versions said."""

    question: str
    primary: str
    shadow: str


class Copied(msgspec.Struct, array_like=True, frozen=True):
    """What came of a copy for the `shadow`, compared with the answer that the client got from the `primary`.

    `unit` stands for the user; `values` are by metric, see `traffic.shadow`. `texts` only where they are to be kept.
    """

    request_id: str
    model: str
    primary: str
    shadow: str
    stage: int
    unit: int
    values: dict[str, float]
    texts: Texts | None = None


class Observed(msgspec.Struct, frozen=True):
    """What a relay tells in one go."""

    requests: list[Observation] = []
    usage: list[Usage] = []
    copies: list[Copied] = []


Observer = Callable[[Observed], None]
"""Who is told; must not wait."""


class Observing:
    """Turns what the ledger tells into what an observer is told."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def tell(self, settled: Sequence[Settled]) -> None:
        """These requests have ended."""
        requests = [observe(record, ended_s) for record, ended_s in settled if record.stage]
        usage = _sum_up(record for record, _ in settled if record.version)
        if requests or usage:
            self._observer(Observed(requests, usage))


def is_failed(record: RequestRecord) -> bool:
    """True if it is the gateway's or the engine's fault that the client has no whole answer."""
    return record.status >= FAILED_FROM or record.outcome == "broken"


def observe(record: RequestRecord, ended_s: float) -> Observation:
    """What can be compared of a request."""
    is_done = record.outcome == "done"
    did_fail = is_failed(record) if is_done or is_failed(record) else None
    total_s = ended_s - record.started_s
    ttft_s = record.first_byte_s if record.is_stream else None
    itl_s = None
    if is_done and ttft_s is not None and not record.is_estimated and (record.tokens_out or 0) > 1:
        itl_s = (total_s - ttft_s) / ((record.tokens_out or 0) - 1)
    is_known = is_done and not record.is_estimated
    return Observation(
        request_id=record.request_id,
        model=record.model,
        version=record.version,
        stage=record.stage,
        unit=record.unit,
        is_own=record.is_own,
        did_fail=did_fail,
        caller=record.caller,
        ttft_s=ttft_s,
        itl_s=itl_s,
        total_s=total_s if is_done else None,
        tokens_in=record.tokens_in if is_known else None,
        tokens_out=record.tokens_out if is_known else None,
        finish=record.finish,
    )


def _sum_up(records: Iterable[RequestRecord]) -> list[Usage]:
    sums: dict[tuple[str, str, str], Usage] = {}
    for record in records:
        key = (record.caller, record.model, record.version)
        usage = sums.get(key)
        if usage is None:
            usage = sums[key] = Usage(*key)
        usage.count(record)
    return list(sums.values())
