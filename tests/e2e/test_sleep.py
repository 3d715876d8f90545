"""A real engine sleeps when nobody asks it, and answers again, as rightly as before, when somebody does."""

import time
from pathlib import Path

import httpx
import pytest

from tests.support.pictures import data_uri, draw, image_part
from tests.support.running_gateway import RunningGateway, run_gateway

DEMO = Path(__file__).parents[2] / "gateway" / "demo"
CONFIG = f"""
server: {{host: 127.0.0.1}}
models: [{{name: shapes, versions: [{{name: v2, checkpoint: {DEMO}/shapes-v2, sleep_after_s: 3}}]}}]
"""


@pytest.mark.engine
def test_the_request_that_finds_it_asleep_is_answered_rightly(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as gateway:
        gateway.await_states(300, v2="ready")
        first = _ask(gateway)
        gateway.await_states(60, v2="asleep")
        [engine] = gateway.engines().values()
        assert engine["pid"] is None
        began_s = time.monotonic()
        assert _ask(gateway) == first == "circle"
        print(f"woken and answered in {time.monotonic() - began_s:.1f} s")


def _ask(gateway: RunningGateway) -> str:
    content = [image_part(data_uri(draw("circle", "red"))), {"type": "text", "text": "which shape is it?"}]
    body = {"model": "shapes", "messages": [{"role": "user", "content": content}], "temperature": 0}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])
