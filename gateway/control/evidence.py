"""What relays observe on its way to the store: gathered, written a few times a second, kept while the store is away.

What is kept has a bound; sums have none to keep, they do not grow.
"""

import asyncio
import logging
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from gateway.errors import StateUnavailable
from gateway.settings import PriceSettings
from gateway.state import Batch, Comparison, Counts, Entry, First
from gateway.telemetry.observations import Copied, Observation, Observed, Usage
from gateway.telemetry.samples import Sample
from gateway.traffic import evidence

logger = logging.getLogger(__name__)

_WRITE_EVERY_S = 0.25
_MOST_KEPT = 100_000  # requests, and users
_MOST_COMPARISONS = 200
_MOST_IN_BATCH = 2_000  # requests, and users: more at once would keep others waiting

FindPrice = Callable[[str, str], PriceSettings | None]
"""What the tokens of a version of a model cost, if that is known."""

ListTexts = Callable[[], Mapping[str, bool]]
"""Of which models texts are kept, by now."""


@dataclass(slots=True)
class _Gathered:
    """What has been observed since the last batch."""

    requests: dict[str, Entry] = field(default_factory=dict)
    firsts: dict[tuple[int, str, int], First] = field(default_factory=dict)
    sums: dict[tuple[int, str, str], Sample] = field(default_factory=dict)
    usage: dict[tuple[str, str, str, str], Usage] = field(default_factory=dict)
    comparisons: deque[Comparison] = field(default_factory=lambda: deque(maxlen=_MOST_COMPARISONS))

    def __bool__(self) -> bool:
        return bool(self.requests or self.firsts or self.sums or self.usage)  # comparisons come with sums


class EvidenceDesk:
    """Takes what relays tell, and has it written. `dropped` counts what there was no room for."""

    def __init__(self, store: Counts, find_price: FindPrice, list_texts: ListTexts) -> None:
        self.dropped = 0
        self._store = store
        self._find_price = find_price
        self._list_texts = list_texts
        self._with_texts: set[str] | None = None  # models of which the store may have some; None is all
        self._gathered = _Gathered()
        self._waiting: deque[Batch] = deque()
        self._lock = asyncio.Lock()

    def take(self, observed: Observed) -> None:
        """What a relay has observed; does not wait."""
        self._take_requests(observed.requests)
        for copied in observed.copies:
            self._take_copy(copied)
        day = time.strftime("%Y-%m-%d", time.gmtime())
        for usage in observed.usage:
            self._add_usage(usage, day)

    def _take_requests(self, observations: Sequence[Observation]) -> None:
        gathered = self._gathered
        own: defaultdict[tuple[int, str, str], list[Observation]] = defaultdict(list)
        for one in observations:
            if one.is_own:
                own[one.stage, one.model, one.version].append(one)
            if len(gathered.requests) >= _MOST_KEPT or len(gathered.firsts) >= _MOST_KEPT:
                self._drop()
                continue
            key, entry = evidence.remember(one)
            gathered.requests[key] = entry
            for group in evidence.list_groups(one):
                place = (one.stage, group, one.unit)
                if place not in gathered.firsts:
                    gathered.firsts[place] = evidence.write_first(one, group, self._read_prices(one.model, one.version))
        for (_, model, version), of_version in own.items():
            evidence.add(gathered.sums, of_version, self._read_prices(model, version))

    def _read_prices(self, model: str, version: str) -> evidence.Prices | None:
        price = self._find_price(model, version)
        return None if price is None else (price.input, price.output)

    async def write(self) -> None:
        """Have the store know all that was taken until now. Raises StateUnavailable; then it is kept for later."""
        async with self._lock:
            await self._write_waiting()
            if self._gathered:
                gathered, self._gathered = self._gathered, _Gathered()
                self._waiting.extend(_cut(gathered))
                await self._write_waiting()

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, has_texts = self._waiting[0], self._list_texts()
            kept = [one for one in batch.comparisons if has_texts.get(one.model)]
            await self._store.tell(msgspec.structs.replace(batch, comparisons=kept))
            self._waiting.popleft()
            if self._with_texts is not None:
                self._with_texts.update(one.model for one in kept)

    async def _forget_texts(self) -> None:
        """Have the store drop the texts of models that are not to keep any.

        Each gateway does, after its own last write of them; and at its start, since it may have been told while it was
        not there. Raises StateUnavailable.
        """
        async with self._lock:
            has_texts = self._list_texts()
            if self._with_texts is None:
                self._with_texts = set(has_texts)
            for model in [model for model in self._with_texts if not has_texts.get(model)]:
                await self._store.forget_comparisons(model)
                self._with_texts.discard(model)

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await asyncio.sleep(_WRITE_EVERY_S)
            try:
                await self.write()
                await self._forget_texts()
            except StateUnavailable:
                continue  # the mirror says so
            except Exception:
                logger.exception("what was observed could not be written, and is lost")
                if self._waiting:
                    self._waiting.popleft()

    def _take_copy(self, copied: Copied) -> None:
        gathered = self._gathered
        evidence.add_copy(gathered.sums, copied)
        if len(gathered.firsts) < _MOST_KEPT:
            for first in evidence.list_copy_firsts(copied):
                gathered.firsts.setdefault((first.stage, first.group, first.unit), first)
        if copied.texts is not None:
            names = (copied.model, copied.request_id, copied.primary, copied.shadow)
            gathered.comparisons.append(Comparison(time.time(), *names, copied.values, copied.texts))

    def _drop(self) -> None:
        if not self.dropped:
            logger.warning("the state is away for so long that requests are no longer remembered for feedback")
        self.dropped += 1

    def _add_usage(self, usage: Usage, day: str) -> None:
        price = self._find_price(usage.model, usage.version)
        if price is not None:
            tokens_in, tokens_out = usage.tokens_in + usage.estimated_in, usage.tokens_out + usage.estimated_out
            usage.cost += (tokens_in * price.input + tokens_out * price.output) / 1e6
        key = (day, usage.caller, usage.model, usage.version)
        known = self._gathered.usage.get(key)
        if known is None:
            usage.day = day
            self._gathered.usage[key] = usage
        else:
            known.add(usage)


def _cut(gathered: _Gathered) -> Iterator[Batch]:
    """As batches that no store needs long for; sums, which are few, come with the first."""
    requests, firsts = list(gathered.requests.items()), list(gathered.firsts.values())
    sums, usage, comparisons = gathered.sums, list(gathered.usage.values()), list(gathered.comparisons)
    yield Batch(uuid.uuid4().hex, dict(requests[:_MOST_IN_BATCH]), firsts[:_MOST_IN_BATCH], sums, usage, comparisons)
    for start in range(_MOST_IN_BATCH, max(len(requests), len(firsts)), _MOST_IN_BATCH):
        end = start + _MOST_IN_BATCH
        yield Batch(uuid.uuid4().hex, dict(requests[start:end]), firsts[start:end])
