"""One source, from its address to a folder on this machine. Blocks: it is called in a thread."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.settings.addresses import SourceAddress
from gateway.sources.attempts import Attempts, FetchTiming
from gateway.sources.cache import Cache, Entry
from gateway.sources.download import Download, Told
from gateway.sources.selection import choose
from gateway.sources.source import Listing, NotAsked, Source, SourceFailed

OpenSource = Callable[[SourceAddress], Source]
"""Opens what an address means. Raises SourceFailed."""

_ATTEMPTS_TO_SPARE = 3  # where somebody waits, or there is something to go on with: a few seconds in all


@dataclass(frozen=True, slots=True)
class Fetched:
    """A source on this machine. `note` is a sentence for people, where the other side could not be asked."""

    folder: Path
    revision: str
    note: str | None = None


def fetch(
    address: SourceAddress,
    cache: Cache,
    open_source: OpenSource,
    told: Told,
    cancelled: threading.Event,
    timing: FetchTiming,
    *,
    is_fresh: bool = False,
) -> Fetched:
    """Fetch what the cache has not got. Raises SourceFailed and FetchCancelled; nothing half-written is ever returned.

    A commit that is in the cache needs no network. Where the other side cannot be asked, the revision that it had
    when it last could is taken, if it is there whole; with `is_fresh` that is a failure.
    """
    entry = cache.open(address)
    if address.revision is not None and (folder := entry.find(address.revision)) is not None:
        return Fetched(folder, address.revision)
    kept = None if is_fresh else _find_kept(entry)
    source = open_source(address)
    is_short = is_fresh or kept is not None
    attempts = min(timing.attempts, _ATTEMPTS_TO_SPARE) if is_short else timing.attempts
    try:
        listing = _list(source, replace(timing, attempts=attempts), cancelled)
    except SourceFailed as failure:
        if kept is None or (failure.is_final and not isinstance(failure, NotAsked)):
            raise
        note = f"{failure}; what was fetched before is used, revision {kept.revision[:12]}{kept.note}"
        return Fetched(kept.folder, kept.revision, note)
    folder = entry.find(listing.revision)
    if folder is None:
        with entry.lock(cancelled):
            folder = entry.find(listing.revision)  # somebody else may have fetched it meanwhile
            if folder is None:
                files = choose(str(address), listing.files)
                staging = entry.prepare(listing.revision)
                entry.reuse(listing.revision, files)
                Download(str(address), source, files, staging, told, cancelled, timing).run()
                folder = entry.publish(listing.revision, files)
    with contextlib.suppress(SourceFailed):  # a cache that others fill may be read only
        entry.remember(listing.revision)
    return Fetched(folder, listing.revision)


def _find_kept(entry: Entry) -> Fetched | None:
    """What the address meant when it was last asked for; its `note` is when."""
    known = entry.recall()
    folder = None if known is None else entry.find(known.revision)
    if known is None or folder is None:
        return None
    asked = time.strftime("%Y-%m-%d %H:%M", time.gmtime(known.asked_at))
    return Fetched(folder, known.revision, f" of {asked} UTC")


def _list(source: Source, timing: FetchTiming, cancelled: threading.Event) -> Listing:
    attempts = Attempts(timing, cancelled)
    while True:
        try:
            return source.list_files()
        except SourceFailed as failure:
            attempts.fail(failure)
