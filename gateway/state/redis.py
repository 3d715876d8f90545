"""State in Redis, for gateways on several machines. What must happen together is one script, see `lua/`.

A server that is killed may lose what it had not yet written to its disk. What was told it last is therefore sent again
when another run of it answers: every script knows what it has done already.
"""

import secrets
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from gateway.errors import StateUnavailable
from gateway.state.store import (
    COMPARISONS_KEPT,
    REQUESTS,
    USERS,
    Batch,
    Comparison,
    Entry,
    Event,
    Evidence,
    Feedback,
    First,
    Lease,
    LeaseLost,
    Snapshot,
    Stale,
)
from gateway.telemetry.observations import Usage
from gateway.telemetry.samples import Sample

_PREFIX = "{gateway}:"
_EVENTS_KEPT = 100_000
_TIMEOUT_S = 2.0
_RECENT_S = 10.0
_MOST_RECENT = 5_000
_MARKS = 1 << 20
_STALE, _LEASE_LOST = -1, -2
_USAGE = ("requests", "failed", "tokens_in", "tokens_out", "estimated_in", "estimated_out", "cost")
_SCRIPTS = Path(__file__).parent / "lua"
_pack = msgspec.json.Encoder().encode
_decode_entry = msgspec.json.Decoder(Entry).decode
_decode_comparison = msgspec.json.Decoder(Comparison).decode
_decode_event = msgspec.json.Decoder(Event).decode


class RedisStore:
    """State in the database that `url` names, `redis://HOST:PORT/DB`."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 1)
        )
        common = (_SCRIPTS / "common.lua").read_text()
        self._scripts: dict[str, AsyncScript] = {
            path.stem: self._redis.register_script(common + path.read_text())
            for path in _SCRIPTS.glob("*.lua")
            if path.stem != "common"
        }
        self._run_id: str | None = None
        self._recent: deque[tuple[float, str, tuple[bytes | str | float, ...]]] = deque(maxlen=_MOST_RECENT)

    async def open(self) -> None:
        """See `Store`."""
        await self._look_who_answers()

    async def close(self) -> None:
        """See `Store`."""
        await self._redis.aclose()

    async def read(self, known: int) -> Snapshot | None:
        """See `Documents`."""
        await self._look_who_answers()
        revision, *rest = await self._run("read", known)
        if revision == known:
            return None
        return Snapshot(revision, {name.decode(): value for name, value in _pair(rest[0])})

    async def commit(
        self,
        revision: int,
        changes: Mapping[str, bytes | None],
        events: Sequence[Event] = (),
        lease: Lease | None = None,
    ) -> int:
        """See `Documents`."""
        told = [msgspec.json.encode(event) for event in events]
        written: list[bytes | str | float] = []
        for name, value in changes.items():
            written += [name, "remove", b""] if value is None else [name, "write", value]
        holder = ("", "") if lease is None else (lease.name, f"{lease.token}|{lease.owner}")
        result = await self._run(
            "commit", revision, uuid.uuid4().hex, secrets.randbelow(_MARKS), *holder, _EVENTS_KEPT,
            len(told), *told, *written,
        )  # fmt: skip
        if result == _STALE:
            raise Stale
        if result == _LEASE_LOST:
            raise LeaseLost(holder[0])
        return int(result)

    async def restore(self, snapshot: Snapshot) -> None:
        """See `Documents`."""
        documents: list[bytes | str | float] = []
        for pair in snapshot.documents.items():
            documents += pair
        await self._run("restore", snapshot.revision, *documents)

    async def read_events(self, limit: int, before: int | None = None, model: str | None = None) -> list[Event]:
        """See `Documents`."""
        found: list[Event] = []
        page = limit if model is None else 1000
        while len(found) < limit:
            rows = await self._run("events", 2**53 if before is None else before, page)
            for row in rows:
                number, _, event = row.partition(b"|")
                before = int(number)
                decoded = msgspec.structs.replace(_decode_event(event), number=before)
                if model is None or decoded.model == model:
                    found.append(decoded)
            if len(rows) < page:
                break
        return found[:limit]

    async def hold(self, name: str, owner: str, ttl_s: float) -> Lease | None:
        """See `Documents`."""
        token = await self._run("hold", name, owner, round(ttl_s * 1000))
        return Lease(name, owner, token) if token else None

    async def release(self, lease: Lease) -> None:
        """See `Documents`."""
        await self._run("release", lease.name, f"{lease.token}|{lease.owner}")

    async def report(self, gateway: str, data: bytes, ttl_s: float) -> dict[str, bytes]:
        """See `Documents`."""
        return {
            name.decode(): value for name, value in _pair(await self._run("report", gateway, data, round(ttl_s * 1000)))
        }

    async def tell(self, batch: Batch) -> None:
        """See `Counts`."""
        requests = [(key, msgspec.json.encode(entry).decode()) for key, entry in batch.requests.items()]
        usage = [
            (one.day, "|".join((one.caller, one.model, one.version)), [(name, getattr(one, name)) for name in _USAGE])
            for one in batch.usage
        ]
        compared = [(one.model, msgspec.json.encode(one).decode()) for one in batch.comparisons]
        firsts = [_tell_first(first) for first in batch.firsts]
        packed = _pack([requests, firsts, _tell_sums(batch.sums), usage, compared])
        await self._write("tell", batch.id, packed, COMPARISONS_KEPT)

    async def find_requests(self, keys: Sequence[str]) -> dict[str, Entry]:
        """See `Counts`."""
        found = await self._run("find", *keys) if keys else []
        return {key: _decode_entry(entry) for key, entry in zip(keys, found, strict=True) if entry}

    async def give(self, feedback: Sequence[Feedback]) -> list[bool]:
        """See `Counts`."""
        taken = []
        for one in feedback:
            packed = _pack([[_tell_first(one.first)] if one.first else [], _tell_sums(one.sums)])
            taken.append(bool(await self._write("give", one.id, one.request, one.metric, repr(one.value), packed)))
        return taken

    async def read_evidence(self, stage: int) -> Evidence:
        """See `Counts`."""
        found: Evidence = {}
        for field, value in (await self._ask(self._redis.hgetall(f"{_PREFIX}samples:{stage}"))).items():
            version, scope, metric, what, *bucket = field.decode().split("|")
            sample = found.setdefault((version, scope, metric), Sample())
            if what == "n":
                sample.count = int(value)
            elif what == "t":
                sample.total = float(value)
            elif what == "s":
                sample.squares = float(value)
            else:
                sample.buckets[int(bucket[0])] = int(value)
        return found

    async def read_usage(self, since: str) -> list[Usage]:
        """See `Counts`."""
        found: dict[tuple[str, str, str, str], Usage] = {}
        for day in sorted(name.decode() for name in await self._ask(self._redis.smembers(f"{_PREFIX}usage-days"))):
            if day >= since:
                for field, value in (await self._ask(self._redis.hgetall(f"{_PREFIX}usage:{day}"))).items():
                    caller, model, version, name = field.decode().split("|")
                    usage = found.setdefault((day, caller, model, version), Usage(caller, model, version, day=day))
                    setattr(usage, name, float(value) if name == "cost" else int(float(value)))
        return [found[key] for key in sorted(found)]

    async def read_comparisons(self, model: str) -> list[Comparison]:
        """See `Counts`."""
        rows = await self._ask(self._redis.lrange(f"{_PREFIX}comparisons:{model}", 0, COMPARISONS_KEPT - 1))
        return [_decode_comparison(row) for row in rows]

    async def forget_comparisons(self, model: str) -> None:
        """See `Counts`."""
        await self._write("forget", model)

    async def _write(self, script: str, *args: bytes | str | float) -> Any:
        """Run a script that writes counts, and remember it for a while."""
        result = await self._run(script, *args)
        self._recent.append((time.monotonic(), script, args))
        return result

    async def _look_who_answers(self) -> None:
        """If it is another run of the server than before, tell it again what the last one may have lost.

        It may have been another one for as long as nobody has looked: control does at each reading.
        """
        info = await self._ask(self._redis.info("server"))
        if self._run_id not in (None, info["run_id"]):
            for _, script, args in list(self._recent):
                await self._run(script, *args)
        self._run_id = info["run_id"]
        while self._recent and self._recent[0][0] < time.monotonic() - _RECENT_S:
            self._recent.popleft()

    async def _run(self, script: str, *args: bytes | str | float) -> Any:
        return await self._ask(self._scripts[script](keys=[_PREFIX], args=args))

    async def _ask(self, asking: Any) -> Any:
        try:
            return await asking
        except (RedisError, OSError) as error:
            raise StateUnavailable(
                f"Redis, which has the state, cannot be asked ({error}).", retry_after_s=5
            ) from error


def _pair(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _tell_sample(stage: int, version: str, scope: str, metric: str, sample: Sample) -> list[Any]:
    """As `add_sample` takes it. A stage is text, as a unit is: Lua would round or reformat such numbers."""
    field = f"{version}|{scope}|{metric}"
    return [str(stage), field, sample.count, sample.total, sample.squares, list(sample.buckets.items())]


def _tell_sums(sums: Mapping[tuple[int, str, str], Sample]) -> list[list[Any]]:
    return [_tell_sample(stage, version, REQUESTS, metric, one) for (stage, version, metric), one in sums.items()]


def _tell_first(first: First) -> list[Any]:
    values = [
        _tell_sample(first.stage, first.version, USERS, value.metric, Sample(
            1, value.value, value.value**2, {} if value.bucket is None else {value.bucket: 1}
        ))
        for value in first.values
    ]  # fmt: skip
    return [str(first.stage), first.group, f"{first.unit:016x}", values]
