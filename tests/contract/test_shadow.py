"""Shadows over simulated engines: copies are compared, and no client notices."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CHAT = "/v1/chat/completions"
CONFIG = """
server: {{host: 127.0.0.1, relays: {relays}}}
models:
  - name: shapes
    split: {{v1: 1}}
    versions:
      - {{name: v1, engine: simulated, engine_args: {{tokens: 8, ttft-ms: 1, itl-ms: 1}}, price: {{input: 1, output: 1}}}}
      - {{name: v2, engine: simulated, engine_args: {{tokens: 12, ttft-ms: {ttft}, itl-ms: 1, fault: {fault}}}}}
"""


def run(folder: Path, relays: int = 1, ttft: int = 20, fault: str = "[]") -> Any:
    (folder / "gateway.yaml").write_text(CONFIG.format(relays=relays, ttft=ttft, fault=fault))
    return run_gateway("--config", str(folder / "gateway.yaml"))


@pytest.fixture(params=[1, 2], ids=["one process", "two relays"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningGateway]:
    with run(tmp_path, request.param) as running:
        running.await_states(60, v1="ready", v2="ready")
        yield running


def admin(gateway: RunningGateway, method: str, path: str, body: object = None) -> dict[str, Any]:
    answer = httpx.request(method, f"{gateway.admin_url}/admin/v1/{path}", json=body, timeout=30)
    assert answer.status_code < 300, answer.text
    told: dict[str, Any] = answer.json()
    return told


def ask(gateway: RunningGateway, number: int, **fields: Any) -> httpx.Response:
    body = {"model": "shapes", "messages": [{"role": "user", "content": f"Hi {number}"}], "temperature": 0}
    body |= {"user": f"u{number}", "stream": number % 2 == 0} | fields
    answer = httpx.post(gateway.url + CHAT, json=body, timeout=30)
    assert (answer.status_code, answer.headers["x-gateway-version"]) == (200, "v1"), answer.text
    return answer


def read_copies(gateway: RunningGateway) -> dict[str, int]:
    lines = httpx.get(f"{gateway.admin_url}/metrics").text.splitlines()
    copies = [line for line in lines if line.startswith("gateway_shadow_copies_total{")]
    return {line.split('outcome="')[1].split('"')[0]: int(float(line.split()[-1])) for line in copies}


def test_copies_are_compared_with_what_clients_got(gateway: RunningGateway) -> None:
    for number in range(3):
        ask(gateway, number)
    admin(gateway, "PUT", "models/shapes/shadow", {"version": "v2", "percent": 100, "keep_texts": True})
    for number in range(30):
        ask(gateway, number)
    found = wait_for(lambda: (told := admin(gateway, "GET", "models/shapes/shadow")["shadow"]["against"].get("v1"))
                     and told["copies"] == 30 and told, 10, lambda: str(read_copies(gateway)))  # fmt: skip
    assert found["users"] == 30
    numbers, answers = found["numbers"], found["answers"]
    assert (numbers["failed"]["primary"], numbers["failed"]["shadow"]) == (0, 0)
    assert (numbers["tokens_out"]["primary"], numbers["tokens_out"]["change"]) == (8, 4)
    assert 0.01 < numbers["ttft_s"]["change"] < 0.2
    assert (answers["same_answer"]["mean"], answers["same_answer"]["count"]) == (0, 30)
    assert 0.4 < answers["agreement"]["mean"] < 0.8, "the one's words are the beginning of the other's"
    texts = admin(gateway, "GET", "models/shapes/shadow/texts")["texts"]
    assert len(texts) == 30
    assert texts[0]["texts"]["shadow"].startswith(texts[0]["texts"]["primary"].rstrip())
    assert texts[0]["texts"]["question"].startswith("Hi ")
    assert admin(gateway, "GET", "models/shapes/experiment")["shadow"]["against"]["v1"]["copies"] == 30
    assert read_copies(gateway) == {"compared": 30}
    wait_for(lambda: admin(gateway, "GET", "usage")["usage"][0]["requests"] == 33, 5)
    assert [one["version"] for one in admin(gateway, "GET", "usage")["usage"]] == ["v1"], "copies are never billed"
    admin(gateway, "DELETE", "models/shapes/shadow")
    ask(gateway, 1)
    time.sleep(0.5)
    assert read_copies(gateway) == {"compared": 30}


def test_a_shadow_outlives_control(tmp_path: Path) -> None:
    from tests.contract.test_versions import find_control

    with run(tmp_path, 2) as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        admin(gateway, "PUT", "models/shapes/shadow", {"version": "v2", "percent": 100})
        os.kill(find_control(gateway), signal.SIGKILL)
        ask(gateway, 1)
        wait_for(lambda: read_copies(gateway) == {"compared": 1}, 20)
        assert admin(gateway, "GET", "models/shapes/shadow")["shadow"]["version"] == "v2"
        ask(gateway, 2)
        wait_for(lambda: read_copies(gateway) == {"compared": 2}, 20)


@pytest.mark.parametrize("fault", ["error-500:0", "hang:0", "cut-stream:2"])
def test_whatever_becomes_of_copies_clients_do_not_notice(tmp_path: Path, fault: str) -> None:
    # The probe wants its first answers; the simulator counts them.
    with run(tmp_path, fault=f"['{fault.replace(':0', ':8')}']") as gateway:
        gateway.await_states(60, v1="ready", v2="ready")
        admin(gateway, "PUT", "models/shapes/shadow", {"version": "v2", "percent": 100, "concurrency": 2})
        for number in range(60):
            ask(gateway, number)
        if fault != "hang:0":
            wait_for(lambda: read_copies(gateway).get("failed", 0) > 0, 20, lambda: str(read_copies(gateway)))
        assert gateway.stop() == 0


def test_a_shadow_that_dies_is_not_missed(gateway: RunningGateway) -> None:
    admin(gateway, "PUT", "models/shapes/shadow", {"version": "v2", "percent": 100})
    [engine] = [
        engine for version in admin(gateway, "GET", "models")["models"][0]["versions"] if version["name"] == "v2"
        for engine in version["engines"]
    ]  # fmt: skip
    os.kill(engine["pid"], signal.SIGKILL)
    for number in range(40):
        ask(gateway, number)
    gateway.await_states(60, v1="ready", v2="ready")
    before = read_copies(gateway).get("compared", 0)
    ask(gateway, 1)
    wait_for(lambda: read_copies(gateway).get("compared", 0) > before, 10)
