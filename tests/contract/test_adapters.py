"""Adapters come, are replaced and go while the gateway serves, over the admin port."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway, wait_for

CHAT = "/v1/chat/completions"
CONFIG = """
server: {{host: 127.0.0.1, relays: {relays}}}
models: [{{name: shapes, versions: [{{name: v1, engine: simulated, replicas: 2, engine_args: {{itl-ms: 20, tokens: 40}}}}]}}]
"""


@pytest.fixture(params=[1, 2], ids=["one process", "two relays"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningGateway]:
    (tmp_path / "gateway.yaml").write_text(CONFIG.format(relays=request.param))
    with run_gateway("--config", str(tmp_path / "gateway.yaml")) as running:
        wait_for(lambda: {engine["state"] for engine in running.engines().values()} == {"ready"}, 60)
        yield running


def ask(gateway: RunningGateway, name: str, **fields: Any) -> httpx.Response:
    body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    return gateway.http.post(CHAT, json=body | fields)


def test_adapters_come_and_go_and_no_request_notices(gateway: RunningGateway, tmp_path: Path) -> None:
    adapters = f"{gateway.admin_url}/admin/v1/models/shapes/versions/v1/adapters"
    name = "shapes:v1+colours"
    assert ask(gateway, name).status_code == 404
    answer = httpx.post(adapters, json={"name": "colours", "path": str(tmp_path)}, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"id": name})
    wait_for(lambda: ask(gateway, name).status_code == 200, 5)  # a route change reaches relays a moment later
    assert ask(gateway, name).json()["model"] == name
    assert name in [card["id"] for card in gateway.http.get("/v1/models").json()["data"]]

    body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "stream": True, "ignore_eos": True}
    with gateway.http.stream("POST", CHAT, json=body | {"max_tokens": 40}) as streamed:
        lines = streamed.iter_lines()
        next(lines)
        assert httpx.delete(f"{adapters}/colours", timeout=30).status_code == 200
        wait_for(lambda: ask(gateway, name).status_code == 404, 5)
        assert list(lines)[-2] == "data: [DONE]", "what is under way ends in order"
    again = httpx.delete(f"{adapters}/colours", timeout=30)
    assert (again.status_code, again.json()["error"]["message"]) == (400, f"{name}: {name} is not mounted.")


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("none/versions/v1", {"name": "a", "path": "/a"}, 404, "none:v1 is not served here"),
        ("shapes/versions/v9", {"name": "a", "path": "/a"}, 404, "shapes:v9 is not served here"),
        ("shapes/versions/v1", {"name": "a b", "path": "/a"}, 400, "The name of an adapter"),
        ("shapes/versions/v1", {"name": "a", "path": "a"}, 400, "must begin at the root"),
        ("shapes/versions/v1", {"name": "a"}, 400, "path"),
        ("shapes/versions/v1", [], 400, "body"),
    ],
)
def test_what_cannot_be_mounted_is_refused(
    gateway: RunningGateway, path: str, body: object, status: int, said: str
) -> None:
    answer = httpx.post(f"{gateway.admin_url}/admin/v1/models/{path}/adapters", json=body, timeout=30)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
