"""State in a file of this machine, for all gateways on it: SQLite, written before it is said to be.

One thread does all the work, so that the event loop never waits for a disk.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.errors import StateUnavailable
from gateway.state import sqlite_counts
from gateway.state.store import Batch, Comparison, Entry, Event, Evidence, Feedback, Lease, LeaseLost, Snapshot, Stale
from gateway.telemetry.observations import Usage

T = TypeVar("T")

_SCHEMA_VERSION = 1
_EVENTS_KEPT = 100_000
_LOCK_TIMEOUT_S = 5.0
_decode_event = msgspec.json.Decoder(Event).decode
_SCHEMA = """
CREATE TABLE documents (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE revision (number INTEGER NOT NULL);
INSERT INTO revision VALUES (0);
CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, event BLOB NOT NULL);
CREATE TABLE leases (name TEXT PRIMARY KEY, owner TEXT, token INTEGER NOT NULL, boot TEXT, expires REAL) WITHOUT ROWID;
CREATE TABLE gateways (name TEXT PRIMARY KEY, data BLOB NOT NULL, boot TEXT, expires REAL) WITHOUT ROWID;
"""


class SqliteStore:
    """State in the file at `path`; None keeps it in memory, until the end of the process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._connection: sqlite3.Connection | None = None
        self._boot = _read_boot()

    async def open(self) -> None:
        """See `Store`."""
        await self._run(lambda connection: None)

    async def close(self) -> None:
        """See `Store`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, connection.close)
        self._thread.shutdown(wait=False)

    async def read(self, known: int) -> Snapshot | None:
        """See `Documents`."""

        def read(connection: sqlite3.Connection) -> Snapshot | None:
            revision = _read_revision(connection)
            if revision == known:
                return None
            return Snapshot(revision, dict(connection.execute("SELECT name, value FROM documents")))

        return await self._run(read, is_read=True)

    async def commit(
        self,
        revision: int,
        changes: Mapping[str, bytes | None],
        events: Sequence[Event] = (),
        lease: Lease | None = None,
    ) -> int:
        """See `Documents`."""

        def commit(connection: sqlite3.Connection) -> int:
            if lease is not None and not self._is_held(connection, lease):
                raise LeaseLost(lease.name)
            if _read_revision(connection) != revision:
                raise Stale
            for name, value in changes.items():
                if value is None:
                    connection.execute("DELETE FROM documents WHERE name = ?", (name,))
                else:
                    connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?)", (name, value))
            _append_events(connection, events)
            connection.execute("UPDATE revision SET number = number + 1")
            return revision + 1

        return await self._run(commit)

    async def restore(self, snapshot: Snapshot) -> None:
        """See `Documents`."""

        def restore(connection: sqlite3.Connection) -> None:
            if _read_revision(connection) < snapshot.revision:
                connection.execute("DELETE FROM documents")
                connection.executemany("INSERT INTO documents VALUES (?, ?)", snapshot.documents.items())
                connection.execute("UPDATE revision SET number = ?", (snapshot.revision,))

        await self._run(restore)

    async def read_events(self, limit: int, before: int | None = None, model: str | None = None) -> list[Event]:
        """See `Documents`."""

        def read(connection: sqlite3.Connection) -> list[Event]:
            rows = connection.execute(
                "SELECT number, event FROM events WHERE number < ?1 AND (?2 IS NULL OR model = ?2) "
                "ORDER BY number DESC LIMIT ?3",
                (2**62 if before is None else before, model, limit),
            )
            return [msgspec.structs.replace(_decode_event(event), number=number) for number, event in rows]

        return await self._run(read, is_read=True)

    async def hold(self, name: str, owner: str, ttl_s: float) -> Lease | None:
        """See `Documents`."""

        def hold(connection: sqlite3.Connection) -> Lease | None:
            known = connection.execute("SELECT owner, token FROM leases WHERE name = ?", (name,)).fetchone()
            holder, token = known or (None, 0)
            is_free = holder is None or not self._is_held(connection, Lease(name, holder, token))
            if not is_free and holder != owner:
                return None
            token += is_free
            values = (name, owner, token, self._boot, _now_s() + ttl_s)
            connection.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", values)
            return Lease(name, owner, token)

        return await self._run(hold)

    async def release(self, lease: Lease) -> None:
        """See `Documents`."""

        def release(connection: sqlite3.Connection) -> None:
            where = "name = ? AND owner = ? AND token = ?"
            connection.execute(f"UPDATE leases SET owner = NULL WHERE {where}", (lease.name, lease.owner, lease.token))  # noqa: S608 - ours

        await self._run(release)

    async def report(self, gateway: str, data: bytes, ttl_s: float) -> dict[str, bytes]:
        """See `Documents`."""

        def report(connection: sqlite3.Connection) -> dict[str, bytes]:
            now_s = _now_s()
            connection.execute("DELETE FROM gateways WHERE boot != ? OR expires < ?", (self._boot, now_s))
            values = (gateway, data, self._boot, now_s + ttl_s)
            connection.execute("INSERT OR REPLACE INTO gateways VALUES (?, ?, ?, ?)", values)
            return dict(connection.execute("SELECT name, data FROM gateways"))

        return await self._run(report)

    async def tell(self, batch: Batch) -> None:
        """See `Counts`."""
        await self._run(lambda connection: sqlite_counts.tell(connection, batch))

    async def find_requests(self, keys: Sequence[str]) -> dict[str, Entry]:
        """See `Counts`."""
        return await self._run(lambda connection: sqlite_counts.find_requests(connection, keys), is_read=True)

    async def give(self, feedback: Sequence[Feedback]) -> list[bool]:
        """See `Counts`."""
        return await self._run(lambda connection: [sqlite_counts.give(connection, one) for one in feedback])

    async def read_evidence(self, stage: int) -> Evidence:
        """See `Counts`."""
        return await self._run(lambda connection: sqlite_counts.read_evidence(connection, stage), is_read=True)

    async def read_usage(self, since: str) -> list[Usage]:
        """See `Counts`."""
        return await self._run(lambda connection: sqlite_counts.read_usage(connection, since), is_read=True)

    async def read_comparisons(self, model: str) -> list[Comparison]:
        """See `Counts`."""
        return await self._run(lambda connection: sqlite_counts.read_comparisons(connection, model), is_read=True)

    async def forget_comparisons(self, model: str) -> None:
        """See `Counts`."""
        await self._run(lambda connection: sqlite_counts.forget_comparisons(connection, model))

    def _is_held(self, connection: sqlite3.Connection, lease: Lease) -> bool:
        row = connection.execute(
            "SELECT 1 FROM leases WHERE name = ? AND owner = ? AND token = ? AND boot = ? AND expires > ?",
            (lease.name, lease.owner, lease.token, self._boot, _now_s()),
        )
        return row.fetchone() is not None

    async def _run(self, work: Callable[[sqlite3.Connection], T], *, is_read: bool = False) -> T:
        """Do `work` in one transaction. Raises StateUnavailable where the file cannot be read or written."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work, is_read)
        except sqlite3.Error as error:
            raise StateUnavailable(
                f"The state in {self._path} cannot be read or written ({error}): make room, or give the right to.",
                retry_after_s=5,
            ) from error

    def _transact(self, work: Callable[[sqlite3.Connection], T], is_read: bool) -> T:
        connection = self._connection
        if connection is None:
            connection = self._connection = _connect(self._path)
        connection.execute("BEGIN" if is_read else "BEGIN IMMEDIATE")  # who only reads keeps nobody from writing
        try:
            found = work(connection)
        except BaseException:
            connection.rollback()
            raise
        connection.execute("COMMIT")
        return found


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        try:
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise sqlite3.OperationalError(error.strerror) from error
    connection = sqlite3.connect(
        path or ":memory:", timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise sqlite3.OperationalError("a later release has written it")
        if version == 0:
            for statement in (_SCHEMA + sqlite_counts.SCHEMA).split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _read_revision(connection: sqlite3.Connection) -> int:
    number: int = connection.execute("SELECT number FROM revision").fetchone()[0]
    return number


def _append_events(connection: sqlite3.Connection, events: Sequence[Event]) -> None:
    for event in events:
        values = (event.model, msgspec.json.encode(event))
        cursor = connection.execute("INSERT INTO events (model, event) VALUES (?, ?)", values)
        connection.execute("DELETE FROM events WHERE number <= ?", ((cursor.lastrowid or 0) - _EVENTS_KEPT,))


def _now_s() -> float:
    """A clock that all processes of this machine share and nobody sets, not even while it sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _read_boot() -> str:
    """What tells this run of the machine, and so of that clock, from others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
