"""Engines that nobody asks sleep; the next request starts them, and waits for them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CHAT = "/v1/chat/completions"
QUESTION = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
CONFIG = """
server: {{host: 127.0.0.1, relays: {relays}}}
models:
  - name: shapes
    split: {{v1: 1}}
    versions:
      - {{name: v1, engine: simulated, replicas: 2, sleep_after_s: 1, engine_args: {{fault: [slow-start:1]}}}}
      - {{name: v2, engine: simulated}}
"""


@pytest.fixture(params=[1, 2], ids=["one process", "two relays"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningGateway]:
    (tmp_path / "gateway.yaml").write_text(CONFIG.format(relays=request.param))
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as running:
        running.await_states(60, v1="ready", v2="ready")
        yield running


def ask(gateway: RunningGateway, model: str = "shapes") -> httpx.Response:
    return httpx.post(gateway.url + CHAT, json=QUESTION | {"model": model}, timeout=60)


def ask_at_once(gateway: RunningGateway, model: str, times: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(lambda _: ask(gateway, model), range(times)))


def states(gateway: RunningGateway) -> dict[str, str]:
    return {name: engine["state"] for name, engine in gateway.engines().items()}


def await_sleep(gateway: RunningGateway) -> None:
    wanted = {"shapes:v1#0": "asleep", "shapes:v1#1": "asleep", "shapes:v2#0": "ready"}
    wait_for(lambda: states(gateway) == wanted, 60, lambda: str(states(gateway)))


def test_requests_wait_for_engines_that_sleep(gateway: RunningGateway) -> None:
    await_sleep(gateway)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask_at_once, gateway, "shapes", 8)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(gateway.url + CHAT, json=QUESTION | {"model": "shapes:v1"}, timeout=0.3)
        assert ask(gateway, "shapes:v2").status_code == 200, "nobody else waits"
        answers = asking.result()
    assert [(answer.status_code, answer.headers["x-gateway-version"]) for answer in answers] == [(200, "v1")] * 8
    await_sleep(gateway)
    assert ask(gateway).status_code == 200
    assert all(engine["restarts"] == 0 for engine in gateway.engines().values())


def test_a_shutdown_refuses_those_that_wait(gateway: RunningGateway) -> None:
    await_sleep(gateway)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, gateway)
        wait_for(lambda: "starting" in states(gateway).values(), 10)
        assert gateway.stop() == 0
        answer = asking.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")


def test_one_that_cannot_wake_any_more_is_said_to_have_failed(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"picture")
    smoke = f"[{{prompt: Hello, expect: ' ', image: {picture}}}]"
    version = f"{{name: v1, engine: simulated, sleep_after_s: 1, smoke: {smoke}}}"
    (tmp_path / "gateway.yaml").write_text(f"models: [{{name: shapes, versions: [{version}]}}]")
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as gateway:
        gateway.await_states(60, v1="asleep")
        picture.unlink()
        answer = ask(gateway)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_replica")
        assert "shapes:v1 (failed)" in answer.json()["error"]["message"]


def test_versions_share_memory_that_holds_only_one_of_them(tmp_path: Path) -> None:
    versions = ", ".join(
        f"{{name: v{n}, engine: simulated, sleep_after_s: 600, engine_args: {{memory-bytes: 600}}}}" for n in (1, 2)
    )
    (tmp_path / "gateway.yaml").write_text(
        f"{{engines: {{memory: 1000}}, models: [{{name: shapes, split: {{v1: 2, v2: 1}}, versions: [{versions}]}}]}}"
    )
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as gateway:
        gateway.await_states(60, v1="ready", v2="asleep")
        for version, other in (("v2", "v1"), ("v1", "v2")):
            assert [answer.status_code for answer in ask_at_once(gateway, f"shapes:{version}", 4)] == [200] * 4
            gateway.await_states(10, **{version: "ready", other: "asleep"})


def test_what_never_fits_is_refused_with_the_figures(tmp_path: Path) -> None:
    version = "{name: v1, engine: simulated, engine_args: {memory-bytes: 3000000000}}"
    (tmp_path / "gateway.yaml").write_text(
        f"{{engines: {{memory: 2GiB}}, models: [{{name: m, versions: [{version}]}}]}}"
    )
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as gateway:
        gateway.await_states(60, v1="failed")
        [engine] = gateway.engines().values()
        assert engine["reason"].startswith("it needs 2.8 GiB of memory, and 2.0 GiB can be had")
        assert engine["next_try_at"] is None


def test_an_engine_with_a_sleep_of_its_own_keeps_its_process(tmp_path: Path) -> None:
    version = "{name: v1, engine: simulated, sleep_after_s: 1, engine_args: {enable-sleep-mode: true}}"
    (tmp_path / "gateway.yaml").write_text(f"models: [{{name: shapes, versions: [{version}]}}]")
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as gateway:
        gateway.await_states(60, v1="asleep")
        [before] = gateway.engines().values()
        assert [answer.status_code for answer in ask_at_once(gateway, "shapes", 4)] == [200] * 4
        [after] = gateway.engines().values()
        assert before["pid"] == after["pid"] is not None
        gateway.await_states(60, v1="asleep")
