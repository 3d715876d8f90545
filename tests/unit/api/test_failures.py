import httpx
import pytest
from fastapi import FastAPI

from gateway.api.failures import add_error_answers


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI(openapi_url=None)
    add_error_answers(app)

    @app.get("/number")
    async def number(value: int) -> int:
        return 1 // value

    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://gateway")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "route_not_found"),
        ("GET", "/docs", 404, "route_not_found"),
        ("POST", "/number", 405, "method_not_allowed"),
        ("GET", "/number?value=x", 400, "invalid_request"),
        ("GET", "/number?value=0", 500, "internal_error"),
    ],
)
async def test_every_failure_is_an_openai_error(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path, headers={"x-request-id": "mine"})
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["x-gateway-error-origin"] == "gateway"
