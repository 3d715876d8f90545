"""A fetch in processes of its own, over the real library for the Hub: killed, two at once, on a disk without room."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.settings.addresses import parse_address
from gateway.sources import open_source
from gateway.sources.attempts import FetchTiming
from gateway.sources.cache import Cache
from gateway.sources.fetching import fetch
from gateway.sources.hub import HubSource
from gateway.sources.source import FetchCancelled, SourceFailed
from tests.support.stores import HubStore

WEIGHTS = os.urandom(2_000_000)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}
_PROGRAM = """
import resource, sys, threading
from pathlib import Path
from gateway.settings.addresses import parse_address
from gateway.sources import SourceFailed, open_source
from gateway.sources.attempts import FetchTiming
from gateway.sources.cache import Cache
from gateway.sources.fetching import fetch
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
cache, timing = Cache(Path(sys.argv[1])), FetchTiming(first_pause_s=0, longest_pause_s=0)
try:
    fetched = fetch(parse_address("hf://org/name"), cache, open_source, lambda *at: None, threading.Event(), timing)
    print(fetched.folder)
except SourceFailed as failure:
    print(failure)
    sys.exit(1)
"""

_CANCELLING_PROGRAM = """
import asyncio, sys
from pathlib import Path
from gateway.settings.addresses import parse_address
from gateway.sources import Fetcher, open_source
from gateway.tasks import TaskSet

async def run():
    tasks = TaskSet()
    fetching = Fetcher(Path(sys.argv[1]), open_source).fetch(parse_address("hf://org/name"), lambda *at: None)
    tasks.start(fetching, "fetch")
    await asyncio.to_thread(sys.stdin.readline)
    await tasks.close()

asyncio.run(run())
"""


@pytest.fixture
def hub() -> Iterator[HubStore]:
    with HubStore(dict(FILES)) as store:
        yield store


def start(hub: HubStore, cache: Path, limit_bytes: int = 0) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(cache), str(limit_bytes)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"},
    )  # fmt: skip


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    told, _ = process.communicate(timeout=60)
    return process.returncode, told.strip()


def test_after_a_kill_only_the_rest_is_asked_for(hub: HubStore, tmp_path: Path) -> None:
    far, going_on = threading.Event(), threading.Event()

    def stop_halfway() -> None:
        if hub.sent_bytes > 1_000_000:
            far.set()
            going_on.wait(30)

    hub.faults.before_piece = stop_halfway
    process = start(hub, tmp_path)
    assert far.wait(60)
    partial = next(iter_until(tmp_path))
    process.send_signal(signal.SIGKILL)
    finish(process)
    there_bytes = partial.stat().st_size
    assert 0 < there_bytes < len(WEIGHTS)
    assert not list(tmp_path.rglob("model.safetensors")), "nothing half-written has a name"

    going_on.set()
    hub.faults.before_piece = lambda: None
    hub.asked.clear()
    code, told = finish(start(hub, tmp_path))
    assert code == 0
    assert (Path(told) / "model.safetensors").read_bytes() == WEIGHTS
    assert [at for at in hub.asked if at[0] == "model.safetensors"] == [("model.safetensors", there_bytes)]


def iter_until(cache: Path) -> Iterator[Path]:
    """The file that is on its way, once something of it is on the disk."""
    pause = threading.Event()
    for _ in range(3000):
        yield from (path for path in cache.rglob("model.safetensors.partial") if path.stat().st_size)
        pause.wait(0.01)
    raise AssertionError("nothing has come")


def test_two_processes_share_one_download(hub: HubStore, tmp_path: Path) -> None:
    processes = [start(hub, tmp_path) for _ in range(3)]
    ends = [finish(process) for process in processes]
    assert [code for code, _ in ends] == [0, 0, 0]
    assert len({told for _, told in ends}) == 1
    assert (Path(ends[0][1]) / "model.safetensors").read_bytes() == WEIGHTS
    assert [name for name, _ in hub.asked].count("model.safetensors") == 1


def test_a_file_that_may_not_grow_leaves_nothing_to_serve(hub: HubStore, tmp_path: Path) -> None:
    code, told = finish(start(hub, tmp_path, limit_bytes=500_000))
    assert code == 1
    assert "may not grow as large as this one" in told
    assert "\n" not in told
    assert not list(tmp_path.rglob("model.safetensors"))
    code, told = finish(start(hub, tmp_path))
    assert (Path(told) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        is_mounted = False
    if not is_mounted:
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_meanwhile_leaves_nothing_to_serve(hub: HubStore, small_disk: Path) -> None:
    filler = small_disk / "filler"

    def fill() -> None:
        if hub.sent_bytes > 500_000 and not filler.exists():
            filler.write_bytes(b"0" * 1_800_000)

    hub.faults.before_piece = fill
    code, told = finish(start(hub, small_disk))
    assert (code, told.partition(": make room")[0].partition("/")[0]) == (1, "the disk of ")
    assert not list(small_disk.rglob("model.safetensors"))
    hub.faults.before_piece = lambda: None
    filler.unlink()
    code, told = finish(start(hub, small_disk))
    assert (Path(told) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_disk_that_is_too_small_is_said_before(hub: HubStore, small_disk: Path) -> None:
    hub.files["other.safetensors"] = b"0" * 4_000_000
    code, told = finish(start(hub, small_disk))
    assert code == 1
    assert told.startswith("hf://org/name needs 6.0 MB in ")
    assert hub.asked == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_cache_that_others_fill_can_be_read_only(
    hub: HubStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_some")  # or the library looks into a home that is not this user's
    code, first = finish(start(hub, tmp_path))
    assert code == 0
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    for path in tmp_path.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    cache, address = Cache(tmp_path), parse_address("hf://org/name")
    os.seteuid(65534)
    try:
        fetched = fetch(
            address, cache, lambda address: HubSource(address, hub.url), lambda *at: None, threading.Event(),
            FetchTiming(),
        )  # fmt: skip
    finally:
        os.seteuid(0)
    assert (str(fetched.folder), fetched.note) == (first, None)


def test_what_is_there_does_not_wait_for_a_download_of_another_revision(hub: HubStore, tmp_path: Path) -> None:
    _, first = finish(start(hub, tmp_path))
    with Cache(tmp_path).open(parse_address("hf://org/name")).lock(threading.Event()):
        assert finish(start(hub, tmp_path)) == (0, first)


def test_a_store_that_is_mute_does_not_keep_a_program_from_ending(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-c", _CANCELLING_PROGRAM, str(tmp_path)],
            stdin=subprocess.PIPE, text=True, env={**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0"},
        )  # fmt: skip
        connection, _ = mute.accept()  # it asks, and gets no answer
        with connection:
            process.communicate("end\n", timeout=10)  # a listing may take 30 s
    assert process.returncode == 0


def test_waiting_for_another_process_can_be_ended(hub: HubStore, tmp_path: Path) -> None:
    address, cancelled = parse_address("s3://bucket/m"), threading.Event()
    cache = Cache(tmp_path)

    def open_nothing(address: object) -> object:
        raise SourceFailed("not asked", is_final=True)

    with pytest.raises(SourceFailed, match="not asked"):
        fetch(address, cache, open_nothing, lambda *at: None, cancelled, FetchTiming())  # type: ignore[arg-type]
    cancelled.set()
    with (
        cache.open(address).lock(threading.Event()),
        pytest.raises(FetchCancelled),
        cache.open(address).lock(cancelled),
    ):
        pass


def test_the_library_of_another_kind_is_not_loaded() -> None:
    program = "import sys, gateway.sources; print([m for m in ('boto3', 'huggingface_hub', 'google.cloud') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert callable(open_source)
