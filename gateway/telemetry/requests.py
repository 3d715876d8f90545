"""What one request came to."""

from dataclasses import dataclass


@dataclass(slots=True)
class RequestRecord:
    """What one request came to; filled while it runs, by the ledger at its end. Durations in seconds.

    `status` 499 means that the client hung up. Tokens are the engine's own count, or, where `is_estimated`, our
    judgement of a request that ended before the engine could say: see `TokenEstimates`; of a stream, the events that
    came. `body_bytes` is the length of what the client sent, `sent_s` when it was sent to an engine, by the clock of
    `started_s`. `stage` is the model's when it was placed, see `ModelRoute`; `unit` stands for its user, who is one of
    the version's if it `is_own`. `caller` is the name of the key that was shown. `finish` is why the answer ended,
    in the words of OpenAI's API, where that was looked at. `is_held_up` says that its client did not keep up, for which
    the engine had to wait.
    """

    request_id: str
    path: str
    started_s: float
    model: str = ""
    version: str = ""
    replica: str = ""
    status: int = 0
    outcome: str = "error"
    first_byte_s: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    is_estimated: bool = False
    body_bytes: int = 0
    sent_s: float = 0.0
    stage: int = 0
    unit: int = 0
    is_own: bool = False
    caller: str = ""
    is_stream: bool = False
    finish: str = ""
    is_held_up: bool = False


Settled = tuple[RequestRecord, float]
"""A request that has ended, and when it did, by the monotonic clock in seconds."""
