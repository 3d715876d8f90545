"""Fetching for those who live in an event loop. Remembers what each address has meant, so that it means one thing."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.settings.addresses import SourceAddress
from gateway.sources.attempts import FetchTiming
from gateway.sources.cache import Cache
from gateway.sources.download import Told
from gateway.sources.fetching import Fetched, OpenSource, fetch
from gateway.sources.source import FetchCancelled

logger = logging.getLogger(__name__)

_MOST_AT_ONCE = 32  # sources; those that wait for another process count too


class Fetcher:
    """Fetches into the cache under `folder`, each source once at a time.

    Engines that come back, and all replicas of a version, get the revision that the first of them got.
    """

    def __init__(self, folder: Path, open_source: OpenSource, timing: FetchTiming | None = None) -> None:
        self._cache = Cache(folder)
        self._open_source = open_source
        self._timing = timing or FetchTiming()
        # Of its own: hours of downloads must not keep the rest of the program from its threads.
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="fetcher")
        self._fetched: dict[SourceAddress, Fetched] = {}
        self._locks: dict[SourceAddress, asyncio.Lock] = {}

    async def fetch(self, address: SourceAddress, told: Told, *, is_fresh: bool = False) -> Fetched:
        """The source as a folder of this machine; `told` is called in the loop. Raises SourceFailed.

        With `is_fresh` the other side is asked again what is there now. A caller that is cancelled ends the download,
        which goes on from there the next time.
        """
        async with self._locks.setdefault(address, asyncio.Lock()):
            known = self._fetched.get(address)
            if known is not None and known.folder.is_dir() and not is_fresh:
                return known
            self._fetched[address] = fetched = await self._fetch(address, told)
            if fetched.note is not None:
                logger.warning("%s", fetched.note)
            return fetched

    async def _fetch(self, address: SourceAddress, told: Told) -> Fetched:
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()

        def tell(done_bytes: int, total_bytes: int) -> None:
            if not cancelled.is_set():
                loop.call_soon_threadsafe(told, done_bytes, total_bytes)

        try:
            return await loop.run_in_executor(
                self._threads, fetch, address, self._cache, self._open_source, tell, cancelled, self._timing
            )
        except FetchCancelled as error:  # nobody but the one who is cancelled ends it
            raise asyncio.CancelledError from error
        finally:
            cancelled.set()
