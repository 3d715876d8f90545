"""The answer through the gateway is the engine's own, token for token."""

import json
from typing import Any

import httpx
import pytest

from tests.support.pictures import data_uri, draw, image_part, user
from tests.support.running_gateway import RunningGateway

CHAT = "/v1/chat/completions"
COLOURS = ("red", "green", "blue", "yellow", "purple")
TEXTS = (
    "what colour is it?", "which shape do you see?", "how many shapes are there?", "where is the shape?",
    "give the box of the shape as json",
)  # fmt: skip


def prompts() -> list[list[dict[str, Any]]]:
    """50 chats: 25 with a picture, 5 of them with two, and 25 without."""
    found = []
    for index in range(25):
        shape = ("circle", "square", "triangle")[index % 3]
        picture = image_part(data_uri(draw(shape, COLOURS[index % 5], centre=(0.3 + 0.02 * index, 0.5))))
        second = [image_part(data_uri(draw("square", "blue")))] if index % 5 == 0 else []
        found.append(user(picture, *second, TEXTS[index % 5]))
    found += [user(f"{TEXTS[index % 5]} number {index}") for index in range(25)]
    return found


def ask(client: httpx.Client, body: dict[str, Any]) -> tuple[list[int], str]:
    """Token ids and text of an answer."""
    answer = client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    if not body.get("stream"):
        choice = answer.json()["choices"][0]
        return choice["token_ids"], choice["message"]["content"]
    ids: list[int] = []
    text = ""
    for line in answer.text.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                ids += choice.get("token_ids") or []
                text += choice["delta"].get("content") or ""
    return ids, text


def bodies(**settings: Any) -> list[dict[str, Any]]:
    base = {"model": "shapes", "max_tokens": 24, "return_token_ids": True} | settings
    return [base | {"messages": messages} for messages in prompts()]


@pytest.mark.engine
def test_greedy_answers_are_the_engines_own(demo: RunningGateway, engine: httpx.Client) -> None:
    own = [ask(engine, body) for body in bodies(temperature=0)]
    assert len(own) == 50
    assert all(ids for ids, _ in own)
    assert len({text for _, text in own}) > 5
    demo.http.headers["x-gateway-version"] = "v1"
    try:
        assert [ask(demo.http, body) for body in bodies(temperature=0)] == own
        assert [ask(demo.http, body) for body in bodies(temperature=0, stream=True)] == own
        # The version's own default is greedy.
        assert [ask(demo.http, body) for body in bodies()] == own
    finally:
        del demo.http.headers["x-gateway-version"]


@pytest.mark.engine
@pytest.mark.parametrize("stream", [False, True])
def test_the_same_seed_gives_the_same_sampled_text(demo: RunningGateway, engine: httpx.Client, stream: bool) -> None:
    def sampled(seed: int) -> list[dict[str, Any]]:
        return bodies(temperature=1.5, top_p=0.98, seed=seed, repetition_penalty=1.1, stream=stream)[20:35]

    own = [ask(engine, body) for body in sampled(11)]
    ours = [ask(demo.http, body | {"model": "shapes:v1"}) for body in sampled(11)]
    assert ours == own
    assert [ask(demo.http, body | {"model": "shapes:v1"}) for body in sampled(12)] != own
