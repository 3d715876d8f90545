"""What clients say of single requests: checked, written before it is acknowledged, and counted for the version."""

import asyncio
import re
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from gateway.control.evidence import EvidenceDesk
from gateway.control.gathering import Gathering
from gateway.errors import BadRequest, Conflict, NotFound, UnknownModel
from gateway.settings import METRIC_NAME, MetricSettings, ModelSettings
from gateway.state import Counts, Entry, Feedback, First, Value
from gateway.telemetry.samples import Metric, Sample
from gateway.traffic import evidence

_PATIENCE_S = 1.5  # a relay tells of a request a fifth of a second after its end, another gateway a little later
_LOOK_EVERY_S = 0.1
_MOST_METRICS = 50
_PREFIXES = re.compile(r"(chatcmpl|cmpl|embd|resp|msg|score)[-_]")
"""What the engine puts before a request's id to make an answer's, which is what clients have at hand."""


class FeedbackDesk:
    """Takes feedback. `find_model` gives a model's settings, or raises UnknownModel."""

    def __init__(self, store: Counts, evidence_desk: EvidenceDesk, find_model: Callable[[str], ModelSettings]) -> None:
        self._store = store
        self._evidence = evidence_desk
        self._find_model = find_model
        self._finding = Gathering[str, Entry | None](self._find_all)
        self._giving = Gathering[Feedback, bool](store.give)
        self._names: defaultdict[str, Counter[str]] = defaultdict(Counter)  # of metrics, written or being written

    async def give(self, request_id: str, metric: str, value: float, caller: str) -> dict[str, Any]:
        """Keep one judgement; returns what it was of, once the store has it.

        Raises BadRequest for a metric or a value that cannot be, NotFound for a request that is not known here or
        another caller's, Conflict for one that has been judged so already, StateUnavailable.
        """
        if not re.fullmatch(METRIC_NAME, metric):
            message = "The name of a metric is small letters, digits and _, beginning with a letter, 64 at most."
            raise BadRequest(message, param="metric")
        if metric in tuple(Metric):
            raise BadRequest(f"The gateway measures {metric} itself: call the feedback something else.", param="metric")
        key, entry = await self._find(request_id, caller)
        self._check(entry, metric, value)
        if not await self._give(key, entry, metric, value):
            raise Conflict(f"The request {request_id} has been judged by {metric} already.", param="request_id")
        return {
            "request_id": request_id,
            "model": entry.model,
            "version": entry.version,
            "metric": metric,
            "counted": entry.is_own,
        }

    async def _give(self, key: str, entry: Entry, metric: str, value: float) -> bool:
        """Whether it was written: only then does its name stay one of the model's metrics."""
        names = self._names[entry.model]
        names[metric] += 1  # before it is written, or many at once would all find room
        is_written = False
        try:
            is_written = await self._giving.ask(_count(key, entry, metric, value))
        finally:
            if not is_written:
                names[metric] -= 1
                names += Counter()  # drops what has come to nothing
        return is_written

    async def _find(self, request_id: str, caller: str) -> tuple[str, Entry]:
        """What is remembered of a request, and its key. One that has just ended may not have been told of yet."""
        ids = [request_id, *([_PREFIXES.sub("", request_id, count=1)] if _PREFIXES.match(request_id) else [])]
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _PATIENCE_S
        while True:
            for key in (evidence.write_key(caller, name) for name in ids):
                entry = await self._finding.ask(key)
                if entry is not None:
                    return key, entry
            if loop.time() >= until_s:
                message = (
                    "No request of this id is known, or it is another caller's: send the x-request-id of its answer. "
                    "Requests to models with a single version are not remembered, nor are those of long ago."
                )
                raise NotFound(message, param="request_id")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _find_all(self, keys: Sequence[str]) -> list[Entry | None]:
        await self._evidence.write()
        found = await self._store.find_requests(list(dict.fromkeys(keys)))
        return [found.get(key) for key in keys]

    def _check(self, entry: Entry, metric: str, value: float) -> None:
        try:
            model = self._find_model(entry.model)
        except UnknownModel:
            raise NotFound(f"{entry.model} is not served here any more.", param="request_id") from None
        scale = model.metrics.get(metric, MetricSettings())
        if not evidence.is_number(value, scale.low, scale.high):
            raise BadRequest(
                f"The value of {metric} is a number from {scale.low:g} to {scale.high:g}; "
                f"other scales are set by `metrics` of the model.",
                param="value",
            )
        known = model.metrics.keys() | self._names[entry.model].keys()
        if metric not in known and len(known) >= _MOST_METRICS:
            raise BadRequest(f"{entry.model} has {len(known)} metrics already: use one of them.", param="metric")


def _count(key: str, entry: Entry, metric: str, value: float) -> Feedback:
    feedback = Feedback(uuid.uuid4().hex, key, metric, value)
    if not entry.is_own:
        return feedback
    counted = [Value(metric, value)]  # it has bounds, and needs no buckets
    sample = Sample()
    sample.add(value, has_buckets=False)
    return Feedback(
        feedback.id, key, metric, value,
        First(entry.stage, entry.version, evidence.give_group(metric), entry.unit, counted),
        {(entry.stage, entry.version, metric): sample},
    )  # fmt: skip
