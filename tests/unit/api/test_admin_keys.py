import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from gateway.api.admin_keys import build_router
from gateway.api.failures import add_error_answers
from gateway.control.keys import Keys
from gateway.control.mirror import StateMirror
from gateway.settings import KeySettings
from gateway.state.sqlite import SqliteStore


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    store = SqliteStore(None)
    app = FastAPI()
    add_error_answers(app)
    app.include_router(build_router(Keys([KeySettings(name="laptop", sha256="ab" * 32)], StateMirror(store))))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as made:
        yield made
    await store.close()


async def test_a_key_is_made_listed_and_removed(client: httpx.AsyncClient) -> None:
    made = await client.post("/keys", json={"name": "ci", "may_pin": False})
    assert made.status_code == 201
    assert made.json()["name"] == "ci"
    listed = (await client.get("/keys")).json()["keys"]
    assert [(key["name"], key["source"], key["may_pin"]) for key in listed] == [
        ("laptop", "file", True), ("ci", "state", False)]  # fmt: skip
    assert made.json()["key"] not in str(listed)
    assert hashlib.sha256(made.json()["key"].encode()).hexdigest() not in str(listed)
    assert (await client.delete("/keys/ci")).status_code == 200
    assert (await client.delete("/keys/ci")).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [({"name": "laptop"}, 409), ({"name": "a b"}, 400), ({}, 400), ({"name": "x", "key": "mine"}, 400), (None, 400)],
)
async def test_what_makes_no_key_is_refused(client: httpx.AsyncClient, body: object, status: int) -> None:
    assert (await client.post("/keys", json=body)).status_code == status


async def test_a_key_of_the_file_is_not_removed(client: httpx.AsyncClient) -> None:
    assert (await client.delete("/keys/laptop")).status_code == 409
