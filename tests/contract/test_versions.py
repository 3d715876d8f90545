"""Versions come, take each other's place and go while the gateway serves, over the admin port."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CHAT = "/v1/chat/completions"
CONFIG = """
server: {{host: 127.0.0.1, relays: {relays}}}
models: [{{name: shapes, versions: [{{name: v1, engine: simulated, engine_args: {{itl-ms: 20, tokens: 60}}}}]}}]
"""


@pytest.fixture(params=[1, 2], ids=["one process", "two relays"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningGateway]:
    (tmp_path / "gateway.yaml").write_text(CONFIG.format(relays=request.param))
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as running:
        running.await_states(60, v1="ready")
        yield running


class Load:
    """Clients that ask without a pause, some for streams; `answers` counts what they got, by version and outcome."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.answers: Counter[tuple[str, str]] = Counter()
        self._gateway = gateway
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(number,)) for number in range(6)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, number: int) -> None:
        with httpx.Client(base_url=self._gateway.url, timeout=30) as client:
            while not self._is_over.is_set():
                body = {"model": "shapes", "messages": [{"role": "user", "content": "Hello"}], "ignore_eos": True}
                body |= {"stream": True, "max_tokens": 50} if number % 2 else {"max_tokens": 5}
                answer = client.post(CHAT, json=body)
                is_whole = answer.text.endswith("data: [DONE]\n\n") if number % 2 else "choices" in answer.json()
                outcome = (
                    "whole" if answer.status_code == 200 and is_whole and '"error"' not in answer.text else answer.text
                )
                self.answers[answer.headers.get("x-gateway-version", "-"), outcome] += 1


def admin(gateway: RunningGateway, method: str, path: str, body: object = None) -> httpx.Response:
    return httpx.request(method, f"{gateway.admin_url}/admin/v1/models/{path}", json=body, timeout=30)


def test_a_version_takes_the_place_of_another_and_no_request_fails(gateway: RunningGateway) -> None:
    load = Load(gateway)
    wait_for(lambda: load.answers["v1", "whole"] > 20, 30)
    new = {"name": "v2", "engine": "simulated", "replaces": "v1", "engine_args": {"fault": ["slow-start:1"]}}
    answer = admin(gateway, "POST", "shapes/versions", new)
    assert (answer.status_code, answer.json()) == (202, {"id": "shapes:v2"})
    wait_for(lambda: list(gateway.engines()) == ["shapes:v2#0"], 30, lambda: str(gateway.engines()))
    before = load.answers["v2", "whole"]
    wait_for(lambda: load.answers["v2", "whole"] > before + 20, 30)
    load.stop()
    assert set(load.answers) == {("v1", "whole"), ("v2", "whole")}
    assert admin(gateway, "GET", "shapes/split").json() == {"split": {"v2": 1.0}}
    assert [card["id"] for card in gateway.http.get("/v1/models").json()["data"]] == ["shapes", "shapes:v2"]


def test_a_successor_that_fails_leaves_the_old_one_in_its_place(gateway: RunningGateway) -> None:
    new = {"name": "v2", "engine": "simulated", "replaces": "v1", "smoke": [{"prompt": "Hello", "expect": "no such"}]}
    admin(gateway, "POST", "shapes/versions", new)
    gateway.await_line(r"shapes:v2 can't be served: v1 stays in its place", 60)
    answer = gateway.http.post(CHAT, json={"messages": [{"role": "user", "content": "Hello"}]})
    assert (answer.status_code, answer.headers["x-gateway-version"]) == (200, "v1")
    assert admin(gateway, "DELETE", "shapes/versions/v2").status_code == 202
    wait_for(lambda: list(gateway.engines()) == ["shapes:v1#0"], 10)


def test_shares_are_changed_for_all_relays(gateway: RunningGateway) -> None:
    admin(gateway, "POST", "shapes/versions", {"name": "v2", "engine": "simulated"})
    gateway.await_states(60, v2="ready")

    def versions() -> set[str]:
        body = {"model": "shapes", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        answers = [
            httpx.post(gateway.url + CHAT, json=body | {"user": str(number)}, timeout=30) for number in range(20)
        ]
        return {answer.headers["x-gateway-version"] for answer in answers}

    assert versions() == {"v1"}, "a version that was loaded gets no traffic by itself"
    assert admin(gateway, "PUT", "shapes/split", {"v1": 1, "v2": 3}).json() == {"split": {"v1": 0.25, "v2": 0.75}}
    wait_for(lambda: versions() == {"v1", "v2"}, 5)
    admin(gateway, "PUT", "shapes/split", {"v2": 1})
    wait_for(lambda: versions() == {"v2"}, 5)
    assert admin(gateway, "DELETE", "shapes/versions/v1").status_code == 202


def test_what_control_was_told_outlives_it(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIG.format(relays=2))
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as gateway:
        gateway.await_states(60, v1="ready")
        new = {"name": "v2", "engine": "simulated", "replaces": "v1", "engine_args": {"fault": ["slow-start:3"]}}
        admin(gateway, "POST", "shapes/versions", new)
        os.kill(find_control(gateway), signal.SIGKILL)
        gateway.await_line(r"shapes:v2 takes the place of v1", 60)
        answer = gateway.http.post(CHAT, json={"messages": [{"role": "user", "content": "Hello"}]})
        assert answer.headers["x-gateway-version"] == "v2"


def find_control(gateway: RunningGateway) -> int:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == gateway.process.pid and b"gateway.app.control" in (folder / "cmdline").read_bytes():
                    return int(folder.name)
            except OSError:
                continue
    raise AssertionError("no process of control")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "none/versions", {"name": "v2", "engine": "simulated"}, 404, "none is not served here"),
        ("POST", "shapes/versions", {"name": "v1", "engine": "simulated"}, 409, "shapes:v1 is here already"),
        ("POST", "shapes/versions", {"name": "v2", "engine": "simulated", "replaces": "v9"}, 404, "shapes:v9"),
        ("POST", "shapes/versions", {"name": "v2", "checkpoint": "/none"}, 400, "there is no such folder: /none"),
        ("POST", "shapes/versions", {"name": "v2", "checkpoin": "/none"}, 400, "did you mean checkpoint?"),
        ("POST", "shapes/versions", [], 400, "body"),
        ("DELETE", "shapes/versions/v1", None, 409, "has 1 of the traffic"),
        ("DELETE", "shapes/versions/v9", None, 404, "shapes:v9 is not served here"),
        ("PUT", "shapes/split", {"v1": -1}, 400, "numbers from 0 up"),
        ("PUT", "shapes/split", {"v1": "x"}, 400, "v1"),
        ("PUT", "none/split", {"v1": 1}, 404, "none is not served here"),
        ("GET", "none/split", None, 404, "none is not served here"),
    ],
)
def test_what_cannot_be_done_is_refused(
    versions_gateway: RunningGateway, method: str, path: str, body: Any, status: int, said: str
) -> None:
    answer = admin(versions_gateway, method, path, body)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text


@pytest.fixture(scope="module")
def versions_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("config")
    (folder / "gateway.yaml").write_text(CONFIG.format(relays=1))
    with run_gateway("--config", str(folder / "gateway.yaml")) as running:
        running.await_states(60, v1="ready")
        yield running
