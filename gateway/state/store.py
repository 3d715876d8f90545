"""What a state store promises, whatever keeps it: documents under one revision, events, leases, and evidence.

All methods raise StateUnavailable while the store cannot be asked, and then it is not known whether what was to be
written has been; writing it again does no harm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from gateway.telemetry.observations import Texts, Usage
from gateway.telemetry.samples import Sample

USERS, REQUESTS = "users", "requests"
"""Scopes of samples: the first value of each user in a stage, and that of every request."""

COMPARISONS_KEPT = 200
"""Of each model."""

SampleKey = tuple[str, str, str]
"""Version, scope and metric."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All documents as they were at a revision. Every commit makes a higher one."""

    revision: int = 0
    documents: Mapping[str, bytes] = field(default_factory=dict)


class Event(msgspec.Struct, frozen=True):
    """Something that was changed or decided, for people: `at` is in seconds since the epoch, `number` in the log."""

    kind: str
    text: str
    model: str = ""
    at: float = 0.0
    details: dict[str, Any] = {}
    number: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do something that only one may do. A later holder has a higher `token`."""

    name: str
    owner: str
    token: int


class Stale(Exception):
    """Somebody else has committed meanwhile: read, and decide again."""


class LeaseLost(Exception):
    """Somebody else has the lease by now: what was decided under it counts no more."""


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """What is remembered of a request, so that feedback on it finds its version. See `Observation`."""

    model: str
    version: str
    stage: int
    unit: int
    is_own: bool


class Value(msgspec.Struct, array_like=True, frozen=True):
    """One value for a sample; `bucket` where it is counted in one."""

    metric: str
    value: float
    bucket: int | None = None


class First(msgspec.Struct, array_like=True, frozen=True):
    """Values that count if they are a user's first of this `group` in the stage."""

    stage: int
    version: str
    group: str
    unit: int
    values: list[Value]


class Comparison(msgspec.Struct, frozen=True):
    """Two answers to one request: of the `primary`, which the client got, and of the `shadow`; `at` since the epoch."""

    at: float
    model: str
    request_id: str
    primary: str
    shadow: str
    values: dict[str, float]
    texts: Texts


class Batch(msgspec.Struct, frozen=True):
    """Counts to be added, once for each `id`, however often they are sent.

    `requests` are remembered for feedback, by their keys; `sums` are added to samples of requests, by stage, version
    and metric. Of `comparisons` the latest of each model are kept.
    """

    id: str
    requests: dict[str, Entry] = {}
    firsts: list[First] = []
    sums: dict[tuple[int, str, str], Sample] = {}
    usage: list[Usage] = []
    comparisons: list[Comparison] = []


class Feedback(msgspec.Struct, frozen=True):
    """One judgement of the request of a key. `id` tells this attempt to give it from any other.

    `first` counts it for the user, `sums` for requests; both are empty where it is kept but not compared.
    """

    id: str
    request: str
    metric: str
    value: float
    first: First | None = None
    sums: dict[tuple[int, str, str], Sample] = {}


Evidence = dict[SampleKey, Sample]
"""All samples of one stage."""


class Documents(Protocol):
    """What is decided: documents, events, and who may decide."""

    async def read(self, known: int) -> Snapshot | None:
        """All documents, or None if their revision is `known`."""

    async def commit(
        self,
        revision: int,
        changes: Mapping[str, bytes | None],
        events: Sequence[Event] = (),
        lease: Lease | None = None,
    ) -> int:
        """Write documents, with None remove them, and append events: all of it or nothing. Returns the new revision.

        Raises Stale if `revision` is not the latest, LeaseLost if `lease` is somebody else's by now.
        """

    async def restore(self, snapshot: Snapshot) -> None:
        """Put back documents that the store has lost, unless it has them or later ones."""

    async def read_events(self, limit: int, before: int | None = None, model: str | None = None) -> list[Event]:
        """The latest events, newest first: those with a number below `before`, of one model."""

    async def hold(self, name: str, owner: str, ttl_s: float) -> Lease | None:
        """Take or keep a lease for so many seconds; None while somebody else has it."""

    async def release(self, lease: Lease) -> None:
        """Give a lease back before its time."""

    async def report(self, gateway: str, data: bytes, ttl_s: float) -> dict[str, bytes]:
        """Say for so many seconds that a gateway is there; returns what all say that are, this one too."""


class Counts(Protocol):
    """What is measured."""

    async def tell(self, batch: Batch) -> None:
        """Add counts."""

    async def find_requests(self, keys: Sequence[str]) -> dict[str, Entry]:
        """What is remembered of requests by their keys; of those that nothing is known of, nothing."""

    async def give(self, feedback: Sequence[Feedback]) -> list[bool]:
        """Keep feedback, each for itself; False for one whose request has been judged by that metric already."""

    async def read_evidence(self, stage: int) -> Evidence:
        """All samples of a stage."""

    async def read_usage(self, since: str) -> list[Usage]:
        """What was used, by day, from a day on, as `2026-11-26`."""

    async def read_comparisons(self, model: str) -> list[Comparison]:
        """The latest of a model, newest first, `COMPARISONS_KEPT` at most."""

    async def forget_comparisons(self, model: str) -> None:
        """Drop all of a model."""


class Store(Documents, Counts, Protocol):
    """A place where state is kept."""

    async def open(self) -> None:
        """Make it ready. Raises StateUnavailable, and may be called again then."""

    async def close(self) -> None:
        """Give back what it holds; nothing is asked of it any more."""
