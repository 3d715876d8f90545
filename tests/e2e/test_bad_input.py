"""A client's mistake is never a 5xx: each gets the OpenAI error object and says what to do."""

from typing import Any

import httpx
import pytest

from tests.support.pictures import data_uri, draw, image_part, user
from tests.support.running_gateway import RunningGateway

pytestmark = pytest.mark.engine

CHAT = "/v1/chat/completions"
PNG = data_uri(draw("circle", "red"))
NO_PICTURE = "data:image/png;base64,bm8gcGljdHVyZQ=="

BODIES: dict[str, dict[str, Any]] = {
    "a picture that is no picture": {"messages": user(image_part(NO_PICTURE), "what?")},
    "a cut picture": {"messages": user(image_part(PNG[:200]), "what?")},
    "a data URI that is no base64": {"messages": user(image_part("data:image/png;base64,%%%"), "what?")},
    "an empty URL": {"messages": user(image_part(""), "what?")},
    "a local file": {"messages": user(image_part("file:///etc/passwd"), "what?")},
    "a picture nobody serves": {"messages": user(image_part("http://127.0.0.1:9/x.png"), "what?")},
    "a host that does not exist": {"messages": user(image_part("http://no-such-host.invalid/x.png"), "what?")},
    "an unknown scheme": {"messages": user(image_part("gopher://x/y"), "what?")},
    "too many pictures": {"messages": user(*[image_part(PNG)] * 9, "what?")},
    "a prompt longer than the context": {"messages": user("red " * 20_000)},
    "a picture as a number": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 7}]}]},
    "an unknown part": {"messages": [{"role": "user", "content": [{"type": "smell", "smell": "x"}]}]},
    "messages of the wrong type": {"messages": "hello"},
    "messages of numbers": {"messages": [1, 2]},
    "no messages": {},
    "empty messages": {"messages": []},
    "an unknown role": {"messages": [{"role": "stranger", "content": "x"}]},
    "content of the wrong type": {"messages": [{"role": "user", "content": 7}]},
    "temperature as text": {"messages": user("x"), "temperature": "hot"},
    "a negative temperature": {"messages": user("x"), "temperature": -1},
    "top_p beyond one": {"messages": user("x"), "top_p": 2},
    "a negative limit": {"messages": user("x"), "max_tokens": -5},
    "a limit beyond the context": {"messages": user("x"), "max_tokens": 10**9},
    "n as text": {"messages": user("x"), "n": "many"},
    "no choices": {"messages": user("x"), "n": 0},
    "a huge seed": {"messages": user("x"), "seed": 2**80},
    "a stop of the wrong type": {"messages": user("x"), "stop": {"a": 1}},
    "an unknown response format": {"messages": user("x"), "response_format": {"type": "poem"}},
    "a schema that is none": {
        "messages": user("x"),
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}},
    },
    "a tool without a name": {"messages": user("x"), "tools": [{"type": "function", "function": {}}]},
    "stream of the wrong type": {"messages": user("x"), "stream": "perhaps"},
    "stream options without a stream": {"messages": user("x"), "stream_options": {"include_usage": True}},
    "stream options of the wrong type": {"messages": user("x"), "stream": True, "stream_options": 7},
    "a repetition penalty of zero": {"messages": user("x"), "repetition_penalty": 0},
    "logit bias of the wrong type": {"messages": user("x"), "logit_bias": [1]},
    "a token that does not exist": {"messages": user("x"), "logit_bias": {"999999": 1}},
    "an unknown model": {"messages": user("x"), "model": "shapes:v7"},
    "an unknown adapter": {"messages": user("x"), "model": "shapes:v2+nobody"},
    "a model of the wrong type": {"messages": user("x"), "model": ["shapes"]},
}

# vLLM takes these for what they might mean: an answer is fine, a 5xx is not.
MAY_BE_ANSWERED = {
    "a repetition penalty of zero", "a limit beyond the context", "an unknown role", "a token that does not exist",
    "a cut picture", "empty messages", "a huge seed",
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_chat_is_refused(demo: RunningGateway, name: str) -> None:
    answer = demo.http.post(CHAT, json={"model": "shapes:v2"} | BODIES[name])
    check(answer, may_be_answered=name in MAY_BE_ANSWERED)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": 7}),
        ("/v1/completions", {"prompt": [999_999]}),
        ("/v1/completions", {"prompt": [-1]}),
        ("/v1/completions", {}),
        ("/v1/responses", {"input": 7}),
        ("/v1/responses", {}),
        ("/v1/messages", {"messages": "x"}),
        ("/v1/messages", {}),
        ("/v1/embeddings", {"input": 7}),
        ("/tokenize", {"prompt": 7}),
        ("/tokenize", {}),
        ("/detokenize", {"tokens": "x"}),
        ("/detokenize", {"tokens": [-5]}),
        ("/detokenize", {"tokens": [10**12]}),
        ("/v1/chat/completions/render", {"messages": 7}),
    ],
)
def test_other_routes_refuse_too(demo: RunningGateway, path: str, body: dict[str, Any]) -> None:
    check(demo.http.post(path, json={"model": "shapes:v2"} | body), may_be_answered=False)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"null", b'{"a":' * 5000])
def test_what_is_no_json_object_is_refused(demo: RunningGateway, content: bytes) -> None:
    check(demo.http.post(CHAT, content=content, headers={"content-type": "application/json"}), may_be_answered=False)


def test_a_hundred_megabytes_are_refused(demo: RunningGateway) -> None:
    answer = demo.http.post(CHAT, content=b" " * 100_000_000, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    check(answer, may_be_answered=False)


def test_a_hundred_megabytes_without_a_length_are_refused(demo: RunningGateway) -> None:
    def pieces() -> Any:
        for _ in range(100):
            yield b" " * 1_000_000

    answer = demo.http.post(CHAT, content=pieces(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_the_engines_survived_all_that(demo: RunningGateway) -> None:
    assert {engine["state"] for engine in demo.engines().values()} == {"ready"}
    assert all(engine["restarts"] == 0 for engine in demo.engines().values())


def check(answer: httpx.Response, *, may_be_answered: bool) -> None:
    if may_be_answered and answer.status_code == 200:
        return
    assert 400 <= answer.status_code < 500, f"{answer.status_code}: {answer.text[:500]}"
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()["error"]
    assert isinstance(error["message"], str)
    assert len(error["message"]) > 10
    assert answer.headers["x-gateway-error-origin"] in ("gateway", "engine")
