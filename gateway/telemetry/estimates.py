"""What a request cost that ended before the engine could say: judged by requests of the same kind that went before."""

from dataclasses import dataclass, field

from gateway.telemetry.requests import RequestRecord

_KEPT = 0.98  # of what was known, with each new request: some fifty count


@dataclass(slots=True)
class _Mean:
    """A mean in which old values count less and less."""

    total: float = 0.0
    weight: float = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        self.total = self.total * _KEPT + value
        self.weight = self.weight * _KEPT + weight

    def tell(self) -> float:
        return self.total / self.weight if self.weight else 0.0


@dataclass(slots=True)
class _Kind:
    """What requests to one route of one version came to.

    `prompts` are their prompts in tokens, by size of the body: bodies of 2^(n-1) up to 2^n bytes are of one size, a
    short question here, a picture there. `pace` is tokens by seconds, `most_out` the longest answer.
    """

    prompts: dict[int, _Mean] = field(default_factory=dict)
    pace: _Mean = field(default_factory=_Mean)
    most_out: int = 0


class TokenEstimates:
    """Learns from requests whose tokens the engine has counted, and fills in those of which it has not."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], _Kind] = {}

    def learn(self, record: RequestRecord, worked_s: float) -> None:
        """The engine has counted the tokens of this request, which it had for so many seconds."""
        key = (record.model, record.version, record.path)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind()
        size = record.body_bytes.bit_length()
        prompts = kind.prompts.get(size)
        if prompts is None:
            prompts = kind.prompts[size] = _Mean()
        tokens_out = record.tokens_out or 0
        prompts.add(record.tokens_in or 0)
        kind.pace.add(tokens_out, worked_s)
        if tokens_out > kind.most_out:
            kind.most_out = tokens_out

    def fill(self, record: RequestRecord, worked_s: float) -> None:
        """Set what is missing of the tokens of a request that was cut; what nothing is known of stays None.

        The prompt is the mean of those in the nearest size of body. An answer that was no stream had come as far as the
        version's pace allows, and no further than its longest answer.
        """
        kind = self._kinds.get((record.model, record.version, record.path))
        if kind is None:
            return
        if record.tokens_in is None:
            size = record.body_bytes.bit_length()
            nearest = min(sorted(kind.prompts), key=lambda known: abs(known - size))
            record.tokens_in = round(kind.prompts[nearest].tell())
        if record.tokens_out is None:
            record.tokens_out = min(kind.most_out, round(kind.pace.tell() * worked_s))
