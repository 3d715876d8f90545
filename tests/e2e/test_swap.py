"""A version takes another's place on real engines, under 50 requests a second, and no client notices."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway

DEMO = Path(__file__).parents[2] / "gateway" / "demo"
PER_SECOND = 50
AFTER_S = 4.0
CONFIG = f"""
server: {{host: 127.0.0.1}}
models: [{{name: shapes, versions: [{{name: v1, checkpoint: {DEMO}/shapes-v1}}]}}]
"""


class Arrivals:
    """Requests that arrive at a fixed pace, whether those before them have been answered or not."""

    def __init__(self, url: str) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self._url = url

    async def run(self, until: asyncio.Event) -> float:
        """Send until told to stop, wait for every answer; returns how long requests were sent, in seconds."""
        limits = httpx.Limits(max_connections=None)
        began_s, number = time.monotonic(), 0
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=60, limits=limits) as client,
            asyncio.TaskGroup() as tasks,
        ):
            while not until.is_set():
                tasks.create_task(self._ask(client, number))
                number += 1
                await asyncio.sleep(max(0.0, began_s + number / PER_SECOND - time.monotonic()))
            return time.monotonic() - began_s

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        body = {"model": "shapes", "messages": [{"role": "user", "content": "which shape is it?"}], "max_tokens": 3}
        try:
            answer = await client.post("/v1/chat/completions", json=body | {"stream": number % 2 == 0})
        except httpx.HTTPError as error:
            self.answers["-", repr(error)] += 1
            return
        is_whole = answer.text.endswith("data: [DONE]\n\n") if number % 2 == 0 else "choices" in answer.text
        is_good = answer.status_code == 200 and is_whole and '"error"' not in answer.text
        self.answers[answer.headers.get("x-gateway-version", "-"), "good" if is_good else answer.text] += 1


@pytest.mark.engine
async def test_a_swap_under_fifty_requests_a_second_fails_none(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as gateway:
        await asyncio.to_thread(gateway.await_states, 300, v1="ready")
        arrivals, is_over = Arrivals(gateway.url), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(arrivals.run(is_over))
            await asyncio.sleep(AFTER_S)
            await asyncio.to_thread(_swap, gateway)
            await asyncio.sleep(AFTER_S)
            is_over.set()
        sent = sum(arrivals.answers.values())
        print(f"{sent} requests in {sending.result():.1f} s: {dict(arrivals.answers)}")
        assert set(arrivals.answers) == {("v1", "good"), ("v2", "good")}
        assert sent > PER_SECOND * AFTER_S


def _swap(gateway: RunningGateway) -> None:
    versions = f"{gateway.admin_url}/admin/v1/models/shapes/versions"
    answer = httpx.post(versions, json={"name": "v2", "checkpoint": f"{DEMO}/shapes-v2", "replaces": "v1"}, timeout=30)
    assert answer.status_code == 202, answer.text
    gateway.await_line("shapes:v1#0 is stopped", 300)
