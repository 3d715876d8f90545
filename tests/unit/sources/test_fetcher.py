import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.settings.addresses import SourceAddress, parse_address
from gateway.sources.attempts import FetchTiming
from gateway.sources.checksums import Checksum
from gateway.sources.fetcher import Fetcher
from gateway.sources.source import Listing, RemoteFile, Sink, SourceFailed
from gateway.tasks import TaskSet

ADDRESS = parse_address("s3://bucket/m")
TIMING = FetchTiming(attempts=2, first_pause_s=0, poll_s=0.01)


class Shelf:
    """A source whose contents change with its revision."""

    def __init__(self) -> None:
        self.revision = "one"
        self.listed = 0
        self.fault: SourceFailed | None = None
        self.on_read: Callable[[], None] = lambda: None

    def list_files(self) -> Listing:
        self.listed += 1
        if self.fault is not None:
            raise self.fault
        return Listing(self.revision, (RemoteFile("model.safetensors", 3, ""),))

    def read(self, file: RemoteFile, offset: int, sink: Sink) -> None:
        self.on_read()
        sink(self.revision.encode()[offset:])

    def find_checksum(self, file: RemoteFile) -> Checksum | None:
        return None


def nothing(done: int, total: int) -> None:
    pass


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def fetcher(shelf: Shelf, tmp_path: Path) -> Fetcher:
    def open_source(address: SourceAddress) -> Shelf:
        return shelf

    return Fetcher(tmp_path, open_source, TIMING)


async def test_an_address_means_one_thing_until_it_is_asked_anew(fetcher: Fetcher, shelf: Shelf) -> None:
    first = await fetcher.fetch(ADDRESS, nothing)
    shelf.revision = "two"
    assert await fetcher.fetch(ADDRESS, nothing) == first
    assert (await fetcher.fetch(ADDRESS, nothing, is_fresh=True)).revision == "two"
    assert (await fetcher.fetch(ADDRESS, nothing)).revision == "two"


async def test_what_somebody_removed_is_fetched_again(fetcher: Fetcher, shelf: Shelf) -> None:
    first = await fetcher.fetch(ADDRESS, nothing)
    (first.folder / "model.safetensors").unlink()
    first.folder.rmdir()
    assert (await fetcher.fetch(ADDRESS, nothing)).folder.is_dir()


async def test_two_who_ask_at_once_share_a_download(fetcher: Fetcher, shelf: Shelf) -> None:
    both = await asyncio.gather(fetcher.fetch(ADDRESS, nothing), fetcher.fetch(ADDRESS, nothing))
    assert both[0] == both[1]
    assert shelf.listed == 1


async def test_progress_is_told_in_the_loop(fetcher: Fetcher) -> None:
    told: list[tuple[int, int, bool]] = []
    here = threading.get_ident()
    await fetcher.fetch(ADDRESS, lambda done, total: told.append((done, total, threading.get_ident() == here)))
    assert told[-1] == (3, 3, True)


async def test_a_failure_is_not_remembered(fetcher: Fetcher, shelf: Shelf) -> None:
    shelf.fault = SourceFailed("down", is_final=False)
    with pytest.raises(SourceFailed, match="down"):
        await fetcher.fetch(ADDRESS, nothing)
    assert shelf.listed == TIMING.attempts
    shelf.fault = None
    assert (await fetcher.fetch(ADDRESS, nothing)).revision == "one"


async def test_a_store_that_cannot_be_asked_is_told(
    fetcher: Fetcher, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    first = await fetcher.fetch(ADDRESS, nothing)
    shelf.fault = SourceFailed("down", is_final=False)
    assert (await fetcher.fetch(ADDRESS, nothing, public_id="m:new")).folder == first.folder
    assert caplog.messages[0].startswith("down; what was fetched before is used, revision one of 20")


async def test_whoever_wants_what_is_there_now_gets_nothing_older(fetcher: Fetcher, shelf: Shelf) -> None:
    await fetcher.fetch(ADDRESS, nothing)
    shelf.fault, shelf.listed = SourceFailed("down", is_final=False), 0
    with pytest.raises(SourceFailed, match=r"^down$"):
        await fetcher.fetch(ADDRESS, nothing, is_fresh=True)
    assert shelf.listed == TIMING.attempts


async def test_what_was_taken_for_want_of_an_answer_is_asked_for_again(fetcher: Fetcher, shelf: Shelf) -> None:
    await fetcher.fetch(ADDRESS, nothing)
    fetcher.forget("")
    shelf.revision, shelf.fault, shelf.listed = "two", SourceFailed("down", is_final=False), 0
    both = await asyncio.gather(fetcher.fetch(ADDRESS, nothing), fetcher.fetch(ADDRESS, nothing))
    assert [one.revision for one in both] == ["one", "one"], "replicas that start together are alike"
    assert shelf.listed == TIMING.attempts
    shelf.fault = None
    assert (await fetcher.fetch(ADDRESS, nothing)).revision == "two"


async def test_a_version_that_is_new_gets_what_is_there_now(fetcher: Fetcher, shelf: Shelf) -> None:
    await fetcher.fetch(ADDRESS, nothing, public_id="m:v1")
    shelf.revision = "two"
    assert (await fetcher.fetch(ADDRESS, nothing, public_id="m:v2")).revision == "two"
    assert (await fetcher.fetch(ADDRESS, nothing, public_id="m:v1")).revision == "one"
    fetcher.forget("m:v1")
    assert (await fetcher.fetch(ADDRESS, nothing, public_id="m:v1")).revision == "two"


async def test_whoever_is_cancelled_ends_the_download(fetcher: Fetcher, shelf: Shelf) -> None:
    reading, going_on = threading.Event(), threading.Event()

    def wait() -> None:
        reading.set()
        going_on.wait(5)

    shelf.on_read = wait
    tasks = TaskSet()
    fetching = tasks.start(fetcher.fetch(ADDRESS, nothing), "fetch")
    await asyncio.to_thread(reading.wait, 5)
    fetching.cancel()
    await asyncio.wait([fetching])
    assert fetching.cancelled()
    going_on.set()
    shelf.on_read = lambda: None
    assert (await fetcher.fetch(ADDRESS, nothing)).revision == "one"
