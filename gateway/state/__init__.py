"""Where what was decided and measured is kept: one protocol, a file for each place. Decides nothing."""

from pathlib import Path

from gateway.state.store import (
    REQUESTS,
    USERS,
    Batch,
    Comparison,
    Counts,
    Documents,
    Entry,
    Event,
    Evidence,
    Feedback,
    First,
    Lease,
    LeaseLost,
    Snapshot,
    Stale,
    Store,
    Value,
)

__all__ = [
    "REQUESTS",
    "USERS",
    "Batch",
    "Comparison",
    "Counts",
    "Documents",
    "Entry",
    "Event",
    "Evidence",
    "Feedback",
    "First",
    "Lease",
    "LeaseLost",
    "Snapshot",
    "Stale",
    "Store",
    "Value",
    "open_store",
]

_SQLITE = "sqlite://"


def open_store(url: str) -> Store:
    """The store that an address names: `sqlite:///FILE`, `sqlite://` for memory, `redis://HOST:PORT/DB`. Opens nothing.

    Raises ValueError, with what to do, for one that cannot be used here.
    """
    if url.startswith(_SQLITE):
        from gateway.state.sqlite import SqliteStore

        path = url.removeprefix(_SQLITE)
        return SqliteStore(Path(path) if path else None)
    try:
        from gateway.state.redis import RedisStore
    except ImportError as error:
        raise ValueError("needs the package for Redis: pip install 'nim-gateway[redis]'") from error
    return RedisStore(url)
