"""Client keys, as the official clients show them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.support.running_gateway import RunningGateway, run_gateway

KEY, OTHER_KEY = "sk-laptop-3f9a", "sk-ci-77b0"
QUESTION: Any = [{"role": "user", "content": "What do you see?"}]
BODY = {"model": "shapes", "messages": QUESTION, "max_tokens": 4}


def config(path: Path) -> str:
    keys = {"laptop": KEY, "ci": OTHER_KEY}
    lines = [f"{{name: {name}, sha256: {hashlib.sha256(key.encode()).hexdigest()}}}" for name, key in keys.items()]
    return f"""
server: {{host: 127.0.0.1, access_log_path: {path}}}
auth: {{required: true, keys: [{", ".join(lines)}]}}
models:
  - name: shapes
    sticky_by: [api_key]
    versions: [{{name: v1, engine: simulated}}, {{name: v2, engine: simulated}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def locked(folder: Path) -> Iterator[RunningGateway]:
    """A gateway that lets nobody in without a key."""
    (folder / "gateway.yaml").write_text(config(folder / "requests.log"))
    with run_gateway("--config", str(folder / "gateway.yaml")) as running:
        running.await_states(60, v1="ready", v2="ready")
        yield running


def client(gateway: RunningGateway, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_a_known_key_opens_everything(locked: RunningGateway, key: str) -> None:
    with client(locked, key) as known:
        whole = known.chat.completions.create(model="shapes", messages=QUESTION, max_tokens=4)
        pieces = list(known.chat.completions.create(model="shapes", messages=QUESTION, max_tokens=4, stream=True))
        assert whole.choices[0].message.content == "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert [model.id for model in known.models.list()] == ["shapes", "shapes:v1", "shapes:v2"]
        assert known.models.retrieve("shapes:v1").id == "shapes:v1"


def test_an_anthropic_client_shows_its_key_in_its_own_way(locked: RunningGateway) -> None:
    with anthropic.Anthropic(base_url=locked.url, api_key=KEY, max_retries=0) as known:
        assert known.messages.create(model="shapes", max_tokens=4, messages=QUESTION).content
    with (
        anthropic.Anthropic(base_url=locked.url, api_key="wrong", max_retries=0) as unknown,
        pytest.raises(anthropic.AuthenticationError),
    ):
        unknown.messages.create(model="shapes", max_tokens=4, messages=QUESTION)


@pytest.mark.parametrize("key", ["wrong", KEY.upper(), KEY[:-1], f"{KEY}x", hashlib.sha256(KEY.encode()).hexdigest()])
def test_an_unknown_key_opens_nothing(locked: RunningGateway, key: str) -> None:
    with client(locked, key) as unknown:
        for ask in (
            lambda: unknown.chat.completions.create(model="shapes", messages=QUESTION),
            lambda: list(unknown.chat.completions.create(model="shapes", messages=QUESTION, stream=True)),
            lambda: unknown.models.list(),
            lambda: unknown.models.retrieve("shapes"),
        ):
            with pytest.raises(openai.AuthenticationError, match="not known here") as caught:
                ask()
            assert caught.value.code == "invalid_api_key"
            assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"), ("POST", "/v1/messages"), ("POST", "/tokenize"), ("GET", "/v1/models"),
        ("GET", "/v1/models/shapes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer"}, {"authorization": f"Basic {KEY}"}])
def test_a_request_without_a_key_is_told_how_to_show_one(
    locked: RunningGateway, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = locked.http.request(method, path, json=BODY if method == "POST" else None, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "authorization: Bearer KEY" in answer.json()["error"]["message"]
    assert answer.headers["x-gateway-error-origin"] == "gateway"


def test_a_key_keeps_to_its_version(locked: RunningGateway) -> None:
    for key in (KEY, OTHER_KEY):
        answers = [
            locked.http.post("/v1/chat/completions", json=BODY, headers={"authorization": f"Bearer {key}"})
            for _ in range(12)
        ]
        assert len({answer.headers["x-gateway-version"] for answer in answers}) == 1


def test_keys_are_never_written(locked: RunningGateway, folder: Path) -> None:
    headers = {"authorization": "Bearer sk-not-for-any-log"}
    assert locked.http.post("/v1/chat/completions", json=BODY, headers=headers).status_code == 401
    assert locked.http.get("/v1/models", headers=headers).status_code == 401
    assert locked.stop() == 0
    written = (folder / "requests.log").read_text()
    assert "status=401 outcome=invalid_api_key" in written
    for key in (KEY, OTHER_KEY, "sk-not-for-any-log"):
        assert key not in written + "\n".join(locked.lines)
