"""A fetch in processes of its own, over the real library for the Hub: killed, two at once, on a disk without room."""

import os
import signal
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
