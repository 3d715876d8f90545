from typing import Any

import httpx
import pytest

from gateway.api.admin import Desk, build_admin_app
from gateway.telemetry.metrics import RelayCounts, render


class FakeControl:
    def describe(self) -> list[dict[str, Any]]:
        return [{"name": "shapes"}]

    async def set_adapter(self, model: str, version: str, adapter: str, place: object) -> str:
        return repr(place)


async def read_metrics() -> bytes:
    return render(RelayCounts(), {"http://a:1": 2})


async def reload(*, is_reset: bool) -> dict[str, Any]:
    return {"is_reset": is_reset}


def client(key: str | None) -> httpx.AsyncClient:
    desk = Desk(FakeControl(), None, None, None, None, None, reload)  # type: ignore[arg-type]
    app = build_admin_app(desk, read_metrics, key)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")


async def test_models_are_described() -> None:
    answer = await client(None).get("/admin/v1/models")
    assert answer.json() == {"models": [{"name": "shapes"}]}


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "secret2", "Bearer sécret"])
@pytest.mark.parametrize("path", ["/admin/v1/models", "/metrics"])
async def test_with_a_key_nobody_gets_in_without_it(header: str | None, path: str) -> None:
    headers = {"authorization": header.encode("latin-1")} if header else {}
    answer = await client("secret").get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


async def test_the_key_opens() -> None:
    answer = await client("secret").get("/admin/v1/models", headers={"authorization": "Bearer secret"})
    assert answer.status_code == 200


async def test_metrics_are_told_as_prometheus_reads_them() -> None:
    answer = await client(None).get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'gateway_requests_running{address="http://a:1"} 2.0' in answer.text


@pytest.mark.parametrize(("body", "is_reset"), [(None, False), ({}, False), ({"reset": True}, True)])
async def test_the_file_is_read_again(body: dict[str, bool] | None, is_reset: bool) -> None:
    answer = await client(None).post("/admin/v1/reload", json=body)
    assert (answer.status_code, answer.json()) == (202, {"is_reset": is_reset})
