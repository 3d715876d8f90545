"""Real vLLM engines as processes: started fresh or forked they say the same, and they never outlive their parent."""

import asyncio
import base64
import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image

from gateway.engines.diagnosis import explain_exit
from gateway.engines.process import ForkSpawner
from tests.support.engine_parent import engine_spec

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
# Another folder with a Qwen2.5-VL checkpoint does as well.
CHECKPOINT = Path(os.environ.get("GATEWAY_TEST_CHECKPOINT", ROOT / "gateway/demo/shapes-v2"))
START_S = 180
END_S = 15


@contextlib.contextmanager
def run_parent(kind: str, uds: Path) -> Iterator[subprocess.Popen[str]]:
    """A stand-in for the gateway with one engine that answers."""
    command = [sys.executable, "-m", "tests.support.engine_parent", kind, str(CHECKPOINT), str(uds)]
    with (uds.parent / "engine.log").open("w") as log:
        parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    with parent:
        try:
            await_health(uds, parent)
            yield parent
        finally:
            parent.kill()


def await_health(uds: Path, parent: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_S
    while not is_listening(uds):
        if time.monotonic() > deadline or parent.poll() is not None:
            pytest.fail((uds.parent / "engine.log").read_text()[-2000:])
        time.sleep(0.1)


def is_listening(uds: Path) -> bool:
    """vLLM takes connections from the moment it can answer."""
    with socket.socket(socket.AF_UNIX) as tried:
        return tried.connect_ex(str(uds)) == 0


def connect(uds: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(uds)), base_url="http://engine", timeout=60)


def picture(colour: str) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (112, 112), colour).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def questions() -> list[Any]:
    asked: list[Any] = ["what colour is it?", "how many shapes are there?", "hello"]
    for colour in ("red", "blue", "white"):
        image = {"type": "image_url", "image_url": {"url": picture(colour)}}
        asked.append([image, {"type": "text", "text": "what colour is it?"}])
    return asked


def answers(uds: Path) -> list[str]:
    with connect(uds) as client:
        return [ask(client, question) for question in questions()]


def ask(client: httpx.Client, question: Any) -> str:
    body = {
        "model": "shapes",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 24,
        "logprobs": True,
    }
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return "".join(token["token"] for token in choice["logprobs"]["content"])


def family(pid: int) -> set[int]:
    """The living descendants of a process."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    found, grown = {pid}, True
    while grown:
        children = {child for child, parent in parents.items() if parent in found}
        grown = not children <= found
        found |= children
    return found - {pid}


def living(pids: set[int]) -> set[int]:
    states = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            states[pid] = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return {pid for pid, state in states.items() if state != "Z"}


def await_end(pids: set[int]) -> set[int]:
    deadline = time.monotonic() + END_S
    while living(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return living(pids)


def test_fresh_and_forked_engines_agree_and_neither_outlives_its_parent(tmp_path: Path) -> None:
    with run_parent("direct", tmp_path / "a") as parent:
        fresh = answers(tmp_path / "a")
        processes = family(parent.pid)
        assert len(processes) >= 2  # API server, core
        parent.send_signal(signal.SIGKILL)
        assert await_end(processes) == set()
    with run_parent("forked", tmp_path / "b") as parent:
        assert answers(tmp_path / "b") == fresh
        processes = family(parent.pid)
        assert len(processes) == 3  # fork server, API server, core
        parent.send_signal(signal.SIGKILL)
        assert await_end(processes) == set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spawner() -> AsyncIterator[ForkSpawner]:
    spawner = ForkSpawner()
    yield spawner
    await spawner.close()


@pytest.mark.asyncio(loop_scope="module")
class TestForked:
    async def test_a_killed_core_is_seen_and_named(self, spawner: ForkSpawner, tmp_path: Path) -> None:
        process = await spawner.spawn(engine_spec(CHECKPOINT, tmp_path / "s"))
        await until_listening(tmp_path / "s")
        (core,) = family(process.pid)
        os.kill(core, signal.SIGKILL)
        async with asyncio.timeout(END_S):
            code = await process.wait()
        assert explain_exit(process.tail(400), code) == "its core process died"

    async def test_a_killed_server_takes_its_core_along(self, spawner: ForkSpawner, tmp_path: Path) -> None:
        process = await spawner.spawn(engine_spec(CHECKPOINT, tmp_path / "s"))
        await until_listening(tmp_path / "s")
        cores = family(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(END_S):
            assert await process.wait() == -9
        assert len(cores) == 1
        assert await asyncio.to_thread(await_end, cores) == set()

    async def test_an_idle_engine_ends_when_asked(self, spawner: ForkSpawner, tmp_path: Path) -> None:
        process = await spawner.spawn(engine_spec(CHECKPOINT, tmp_path / "s"))
        await until_listening(tmp_path / "s")
        process.terminate()
        async with asyncio.timeout(END_S):
            assert await process.wait() == 0

    async def test_a_checkpoint_without_weights_says_so(self, spawner: ForkSpawner, tmp_path: Path) -> None:
        bare = tmp_path / "bare"
        shutil.copytree(CHECKPOINT, bare, ignore=shutil.ignore_patterns("*.safetensors"))
        process = await spawner.spawn(engine_spec(bare, tmp_path / "s"))
        async with asyncio.timeout(END_S):
            code = await process.wait()
        assert explain_exit(process.tail(400), code) == f"there are no weights in {bare}"


async def until_listening(uds: Path) -> None:
    async with asyncio.timeout(START_S):
        while not is_listening(uds):
            await asyncio.sleep(0.1)
