"""What a request cost that ended before the engine could say: judged by requests of the same kind that went before."""

from dataclasses import dataclass, field

from gateway.telemetry.requests import RequestRecord

_KEPT = 0.98  # of what was known, with each new request: some fifty count


@dataclass(slots=True)
class _Kind:
    """What requests to one route of one version came to. `prompts` has mean prompts, in tokens, by size of the body.

    Bodies of 2^(n-1) up to 2^n bytes are of one size: a short question here, a picture there.
    """

    prompts: dict[int, float] = field(default_factory=dict)
    tokens: float = 0.0
    seconds: float = 0.0


class TokenEstimates:
    """Learns from requests whose tokens the engine has counted, and fills in those of which it has not."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], _Kind] = {}

    def learn(self, record: RequestRecord, total_s: float) -> None:
        """The engine has counted the tokens of this request."""
        key = (record.model, record.version, record.path)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind()
        tokens_in, size = record.tokens_in or 0, record.body_bytes.bit_length()
        kind.prompts[size] = tokens_in + (kind.prompts.get(size, tokens_in) - tokens_in) * _KEPT
        kind.tokens = kind.tokens * _KEPT + (record.tokens_out or 0)
        kind.seconds = kind.seconds * _KEPT + total_s

    def fill(self, record: RequestRecord, total_s: float) -> None:
        """Set what is missing of the tokens of a request that was cut; what nothing is known of stays None.

        The prompt is the mean of those in the nearest size of body. An answer that was no stream had come as far as the
        version's tokens by seconds allow.
        """
        kind = self._kinds.get((record.model, record.version, record.path))
        if kind is None:
            return
        if record.tokens_in is None:
            size = record.body_bytes.bit_length()
            nearest = min(kind.prompts, key=lambda known: abs(known - size))
            record.tokens_in = round(kind.prompts[nearest])
        if record.tokens_out is None and kind.seconds:
            record.tokens_out = round(kind.tokens / kind.seconds * total_s)
