"""The part of the SQLite store that counts: requests that feedback may be given on, samples, usage.

Every function works inside a transaction of its caller's. Many rows are written by one statement, which takes them as
JSON: after each of many statements Python's lock would change hands, and whoever relays would wait for it.
"""

import sqlite3
import time
from collections.abc import Sequence

import msgspec

from gateway.state.store import (
    COMPARISONS_KEPT,
    REQUESTS,
    USERS,
    Batch,
    Comparison,
    Entry,
    Evidence,
    Feedback,
    First,
)
from gateway.telemetry.observations import Usage
from gateway.telemetry.samples import Sample

SCHEMA = """
CREATE TABLE batches (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE);
CREATE TABLE requests (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, entry BLOB NOT NULL);
CREATE TABLE feedback (
    number INTEGER PRIMARY KEY AUTOINCREMENT, request_id TEXT NOT NULL, metric TEXT NOT NULL, value REAL NOT NULL,
    id TEXT NOT NULL, at REAL NOT NULL, UNIQUE (request_id, metric)
);
CREATE TABLE stages (number INTEGER PRIMARY KEY AUTOINCREMENT, stage INTEGER UNIQUE);
CREATE TABLE seen (stage INTEGER, grp TEXT, unit INTEGER, PRIMARY KEY (stage, grp, unit)) WITHOUT ROWID;
CREATE TABLE samples (
    stage INTEGER, version TEXT, scope TEXT, metric TEXT, count INTEGER, total REAL, squares REAL,
    PRIMARY KEY (stage, version, scope, metric)
) WITHOUT ROWID;
CREATE TABLE buckets (
    stage INTEGER, version TEXT, scope TEXT, metric TEXT, bucket INTEGER, count INTEGER,
    PRIMARY KEY (stage, version, scope, metric, bucket)
) WITHOUT ROWID;
CREATE TABLE usage (
    day TEXT, caller TEXT, model TEXT, version TEXT, requests INTEGER, failed INTEGER, tokens_in INTEGER,
    tokens_out INTEGER, estimated_in INTEGER, estimated_out INTEGER, cost REAL,
    PRIMARY KEY (day, caller, model, version)
) WITHOUT ROWID;
CREATE TABLE comparisons (number INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, comparison BLOB NOT NULL);
CREATE INDEX comparisons_of_model ON comparisons (model, number)
"""

_REQUESTS_KEPT = 1_000_000
_FEEDBACK_KEPT = 1_000_000
_BATCHES_KEPT = 10_000
_STAGES_KEPT = 500
_SIGN = 1 << 63

_SampleKey = tuple[int, str, str, str]
_decode_entry = msgspec.json.Decoder(Entry).decode
_decode_comparison = msgspec.msgpack.Decoder(Comparison).decode


def tell(connection: sqlite3.Connection, batch: Batch) -> None:
    """See `Counts`."""
    if connection.execute("INSERT OR IGNORE INTO batches (id) VALUES (?)", (batch.id,)).rowcount == 0:
        return
    requests = {key: msgspec.json.encode(entry).decode() for key, entry in batch.requests.items()}
    # Where a client uses an id twice, its later request is the one that feedback is on.
    insert = "INSERT OR REPLACE INTO requests (id, entry) SELECT key, value FROM json_each(?)"
    connection.execute(insert, (_pack(requests),))
    samples = {(stage, version, REQUESTS, metric): sample for (stage, version, metric), sample in batch.sums.items()}
    _add(connection, samples | _find_new(connection, batch.firsts))
    for usage in batch.usage:
        _add_usage(connection, usage)
    _add_comparisons(connection, batch.comparisons)
    _forget(connection, "batches", _BATCHES_KEPT)
    _forget(connection, "requests", _REQUESTS_KEPT)
    _forget_stages(connection, {stage for stage, *_ in samples} | {first.stage for first in batch.firsts})


def find_requests(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Entry]:
    """See `Counts`."""
    found: dict[str, Entry] = {}
    for key in keys:
        row = connection.execute("SELECT entry FROM requests WHERE id = ?", (key,)).fetchone()
        if row is not None:
            found[key] = _decode_entry(row[0])
    return found


def give(connection: sqlite3.Connection, feedback: Feedback) -> bool:
    """Keep one judgement; False if there is one of this request by this metric already."""
    is_new = connection.execute(
        "INSERT OR IGNORE INTO feedback (request_id, metric, value, id, at) VALUES (?, ?, ?, ?, ?)",
        (feedback.request, feedback.metric, feedback.value, feedback.id, time.time()),
    ).rowcount
    if not is_new:
        where = "SELECT id FROM feedback WHERE request_id = ? AND metric = ?"
        known = connection.execute(where, (feedback.request, feedback.metric)).fetchone()
        return bool(known[0] == feedback.id)  # the same attempt, whose answer was lost
    samples = {(stage, version, REQUESTS, metric): sample for (stage, version, metric), sample in feedback.sums.items()}
    _add(connection, samples | _find_new(connection, [feedback.first] if feedback.first else []))
    _forget(connection, "feedback", _FEEDBACK_KEPT)
    return True


def read_evidence(connection: sqlite3.Connection, stage: int) -> Evidence:
    """See `Counts`."""
    found: Evidence = {}
    columns = "version, scope, metric, count, total, squares"
    for *key, count, total, squares in connection.execute(f"SELECT {columns} FROM samples WHERE stage = ?", (stage,)):  # noqa: S608
        found[key[0], key[1], key[2]] = Sample(count, total, squares, {})
    columns = "version, scope, metric, bucket, count"
    for *key, bucket, count in connection.execute(f"SELECT {columns} FROM buckets WHERE stage = ?", (stage,)):  # noqa: S608
        found[key[0], key[1], key[2]].buckets[bucket] = count
    return found


def read_usage(connection: sqlite3.Connection, since: str) -> list[Usage]:
    """See `Counts`."""
    columns = "caller, model, version, requests, failed, tokens_in, tokens_out, estimated_in, estimated_out, cost, day"
    order = "ORDER BY day, caller, model, version"
    return [Usage(*row) for row in connection.execute(f"SELECT {columns} FROM usage WHERE day >= ? {order}", (since,))]  # noqa: S608


def read_comparisons(connection: sqlite3.Connection, model: str) -> list[Comparison]:
    """See `Counts`."""
    asked = "SELECT comparison FROM comparisons WHERE model = ? ORDER BY number DESC LIMIT ?"
    return [_decode_comparison(row[0]) for row in connection.execute(asked, (model, COMPARISONS_KEPT))]


def forget_comparisons(connection: sqlite3.Connection, model: str) -> None:
    """See `Counts`."""
    connection.execute("DELETE FROM comparisons WHERE model = ?", (model,))


def _add_comparisons(connection: sqlite3.Connection, comparisons: Sequence[Comparison]) -> None:
    rows = [(one.model, msgspec.msgpack.encode(one)) for one in comparisons]
    connection.executemany("INSERT INTO comparisons (model, comparison) VALUES (?, ?)", rows)
    for model in {one.model for one in comparisons}:
        latest = "SELECT number FROM comparisons WHERE model = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2"
        connection.execute(
            f"DELETE FROM comparisons WHERE model = ?1 AND number <= ({latest})",  # noqa: S608 - ours
            (model, COMPARISONS_KEPT),
        )


def _find_new(connection: sqlite3.Connection, firsts: Sequence[First]) -> dict[_SampleKey, Sample]:
    """Samples of those values that are their user's first."""
    places = [(first.stage, first.group, first.unit - _SIGN) for first in firsts]  # SQLite's integers have a sign
    rows = f"SELECT {_list_columns(3)} FROM json_each(?)"  # noqa: S608 - ours
    insert = f"INSERT OR IGNORE INTO seen {rows} RETURNING stage, grp, unit"
    new = set(connection.execute(insert, (_pack(places),)))
    found: dict[_SampleKey, Sample] = {}
    for place, first in zip(places, firsts, strict=True):
        if place in new:
            new.remove(place)
            for value in first.values:
                key = (first.stage, first.version, USERS, value.metric)
                found.setdefault(key, Sample()).add_known(value.value, value.bucket)
    return found


def _add(connection: sqlite3.Connection, samples: dict[_SampleKey, Sample]) -> None:
    for key, sample in samples.items():
        connection.execute(
            "INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "count = count + excluded.count, total = total + excluded.total, squares = squares + excluded.squares",
            (*key, sample.count, sample.total, sample.squares),
        )
    counted = [(*key, bucket, count) for key, sample in samples.items() for bucket, count in sample.buckets.items()]
    rows = f"SELECT {_list_columns(6)} FROM json_each(?) WHERE true"  # noqa: S608 - ours
    added = "ON CONFLICT DO UPDATE SET count = count + excluded.count"
    connection.execute(f"INSERT INTO buckets {rows} {added}", (_pack(counted),))


def _add_usage(connection: sqlite3.Connection, usage: Usage) -> None:
    names = ("requests", "failed", "tokens_in", "tokens_out", "estimated_in", "estimated_out", "cost")
    added = ", ".join(f"{name} = {name} + excluded.{name}" for name in names)
    connection.execute(
        f"INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET {added}",  # noqa: S608
        (usage.day, usage.caller, usage.model, usage.version, *(getattr(usage, name) for name in names)),
    )


def _list_columns(count: int) -> str:
    """What a row of `_pack` is made of."""
    return ", ".join(f"json_extract(value, '$[{number}]')" for number in range(count))


def _pack(rows: object) -> str:
    return msgspec.json.encode(rows).decode()


def _forget(connection: sqlite3.Connection, table: str, kept: int) -> None:
    """Keep so many rows of a table, the latest."""
    connection.execute(f"DELETE FROM {table} WHERE number <= (SELECT MAX(number) FROM {table}) - ?", (kept,))  # noqa: S608


def _forget_stages(connection: sqlite3.Connection, used: set[int]) -> None:
    """Note which stages are used, and drop what was measured in those that have not been for the longest time."""
    connection.executemany("INSERT OR REPLACE INTO stages (stage) VALUES (?)", [(stage,) for stage in used])
    where = "number <= (SELECT number FROM stages ORDER BY number DESC LIMIT 1 OFFSET ?)"
    old = connection.execute(f"SELECT stage FROM stages WHERE {where}", (_STAGES_KEPT,)).fetchall()  # noqa: S608
    for table in ("seen", "samples", "buckets", "stages") if old else ():
        connection.executemany(f"DELETE FROM {table} WHERE stage = ?", old)  # noqa: S608
