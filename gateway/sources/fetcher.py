"""Fetching for those who live in an event loop. Remembers what each address has meant, so that it means one thing."""

import asyncio
import logging
import threading
from functools import partial
from pathlib import Path

from gateway.settings.addresses import SourceAddress
from gateway.sources.attempts import FetchTiming
from gateway.sources.cache import Cache
from gateway.sources.download import Told
from gateway.sources.fetching import Fetched, OpenSource, fetch
from gateway.sources.source import FetchCancelled
from gateway.sources.threads import start_thread

logger = logging.getLogger(__name__)


class Fetcher:
    """Fetches into the cache under `folder`, each source once at a time.

    Engines that come back, and all replicas of a version, get the revision that the first of them got, unless the
    other side could not be asked then: those that come later ask again.
    """

    def __init__(self, folder: Path, open_source: OpenSource, timing: FetchTiming | None = None) -> None:
        self._cache = Cache(folder)
        self._open_source = open_source
        self._timing = timing or FetchTiming()
        self._fetched: dict[tuple[str, SourceAddress], Fetched] = {}
        self._locks: dict[SourceAddress, asyncio.Lock] = {}

    async def fetch(
        self, address: SourceAddress, told: Told, *, public_id: str = "", is_fresh: bool = False
    ) -> Fetched:
        """The source as a folder of this machine; `told` is called in the loop. Raises SourceFailed.

        An address means one thing to all that is served as `public_id`. With `is_fresh` the other side is asked what is
        there now, and it must answer. A caller that is cancelled ends the download, which goes on from there the next
        time.
        """
        key = (public_id, address)
        before = self._fetched.get(key)
        async with self._locks.setdefault(address, asyncio.Lock()):
            known = self._fetched.get(key)
            # Those who wait together get the same, even where nobody could be asked.
            is_right = known is not None and (known.note is None or known is not before)
            if known is not None and is_right and known.folder.is_dir() and not is_fresh:
                return known
            self._fetched[key] = fetched = await self._fetch(address, told, is_fresh=is_fresh)
            if fetched.note is not None:
                logger.warning("%s", fetched.note)
            return fetched

    def forget(self, public_id: str) -> None:
        """What was served so is gone: one that comes by its name asks anew."""
        for key in [key for key in self._fetched if key[0] == public_id]:
            del self._fetched[key]

    async def _fetch(self, address: SourceAddress, told: Told, *, is_fresh: bool) -> Fetched:
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()

        def tell(done_bytes: int, total_bytes: int) -> None:
            if not cancelled.is_set():
                loop.call_soon_threadsafe(told, done_bytes, total_bytes)

        try:
            work = partial(
                fetch, address, self._cache, self._open_source, tell, cancelled, self._timing, is_fresh=is_fresh
            )
            return await asyncio.wrap_future(start_thread(work, "fetcher"))
        except FetchCancelled as error:  # nobody but the one who is cancelled ends it
            raise asyncio.CancelledError from error
        finally:
            cancelled.set()
