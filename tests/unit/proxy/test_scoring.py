import json
from pathlib import Path
from typing import Any

import pytest

from gateway.fleet.replica import Replica
from gateway.proxy.body import parse_fields
from gateway.proxy.call import RequestHead
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.scoring import Asking, list_tokens, score
from gateway.traffic.routes import VersionRoute
from gateway.traffic.shadow import Score
from tests.support.exchanges import engine_and_client
from tests.support.scripted_engine import answer

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOKENS = answer(json.dumps({"count": 2, "tokens": [7, 8]}).encode())


def told(*probabilities: dict[int, float] | None, in_choice: bool = False) -> bytes:
    entries = [
        None if one is None else {str(token): {"logprob": value, "rank": 1} for token, value in one.items()}
        for one in probabilities
    ]
    found = {"prompt_logprobs": entries}
    return answer(json.dumps({"choices": [found], "usage": {}} if in_choice else {"choices": [{}], **found}).encode())


PROBABLE = told(None, {1: -9.0}, {7: -0.5}, {8: -1.5})
LESS = told(None, {1: -9.0}, {7: -2.0}, {8: -4.0})


async def ask(folder: Path, scripts: list[Any], body: dict[str, Any], path: str = CHAT) -> tuple[Any, list[Any]]:
    async with engine_and_client(folder, scripts) as (engine, upstream, address):
        one = Asking(VersionRoute("v1"), Replica("v1-0", "m", "v1", address, "m:v1@1"))
        two = Asking(VersionRoute("v2", system_prompt="Look."), Replica("v2-0", "m", "v2", address, "m:v2@2"))
        head = RequestHead(ENDPOINTS[path], {}, b"")
        found = await score(upstream, one, two, head, parse_fields(json.dumps(body).encode()), "a circle")
        return found, [json.loads(request.partition(b"\r\n\r\n")[2]) for request in engine.requests]


async def test_both_versions_read_question_and_answer_as_a_prompt(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "which?"}], "temperature": 1, "stream": True,
            "mm_processor_kwargs": {"max_pixels": 5}, "tools": [{"type": "function"}]}  # fmt: skip
    found, asked = await ask(tmp_path, [[TOKENS], [TOKENS], [PROBABLE], [LESS]], body)
    assert found == Score(by_primary=-1.0, by_shadow=-3.0)
    assert asked[0] == {"model": "m:v1@1", "prompt": "a circle", "add_special_tokens": False}
    assert asked[2] == {
        "model": "m:v1@1", "tools": [{"type": "function"}], "tool_choice": "none", "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0,
        "mm_processor_kwargs": {"max_pixels": 5}, "add_generation_prompt": False, "continue_final_message": True,
        "messages": [{"role": "user", "content": "which?"}, {"role": "assistant", "content": "a circle"}],
    }  # fmt: skip
    assert [one["model"] for one in asked] == ["m:v1@1", "m:v2@2"] * 2
    assert asked[3]["model"] == "m:v2@2"
    assert asked[3]["messages"][0] == {"role": "system", "content": "Look."}, "its own version's system prompt"


async def test_a_completion_is_scored_behind_its_prompt(tmp_path: Path) -> None:
    scripts = [[TOKENS], [TOKENS], *([[told(None, {7: -1.0}, {8: -1.0}, in_choice=True)]] * 2)]
    found, asked = await ask(tmp_path, scripts, {"prompt": "It is "}, COMPLETIONS)
    assert found == Score(-1.0, -1.0)
    assert asked[2]["prompt"] == "It is a circle"


async def test_a_first_token_that_grew_together_with_the_prompt_counts(tmp_path: Path) -> None:
    found, _ = await ask(tmp_path, [[TOKENS], [TOKENS], [told({9: -1.0}, {8: -3.0})], [PROBABLE]], {"messages": []})
    assert found == Score(-2.0, -1.0)


@pytest.mark.parametrize(
    "scripts",
    [
        [[answer(b"{}", status="404 Not Found")]],
        [[answer(b"[]")]],
        [[answer(b'{"tokens": []}')]],
        [[TOKENS], [answer(b'{"tokens": [7, 9]}')]],
        [[TOKENS], [answer(b"{}", status="500 Oops")]],
        [[TOKENS], [TOKENS], [answer(b"{}", status="400 Bad Request")]],
        [[TOKENS], [TOKENS], [answer(b'{"choices": []}')]],
        [[TOKENS], [TOKENS], [answer(b"5")]],
        [[TOKENS], [TOKENS], [told({7: -1.0})]],
        [[TOKENS], [TOKENS], [told({7: -1.0}, {5: -1.0})]],
        [[TOKENS], [TOKENS], [told(None, {7: -1.0}, None)]],
        [[TOKENS], [TOKENS], [PROBABLE], [answer(b"{}", status="500 Oops")]],
    ],
)
async def test_an_engine_that_does_not_say_scores_nothing(tmp_path: Path, scripts: list[Any]) -> None:
    assert (await ask(tmp_path, scripts, {"messages": []}))[0] is None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": 5}),
        (CHAT, {}),
        (COMPLETIONS, {"prompt": [1]}),
        ("/v1/responses", {"input": "x"}),
        (COMPLETIONS, {"prompt": "x", "echo": True}),
        (CHAT, {"messages": [], "continue_final_message": True}),
    ],
)
async def test_an_answer_that_is_no_part_of_a_prompt_is_not_scored(tmp_path: Path, path: str, body: Any) -> None:
    found, asked = await ask(tmp_path, [[TOKENS]], body, path)
    assert (found, asked) == (None, [])


async def test_tokens_are_the_engines_own(tmp_path: Path) -> None:
    async with engine_and_client(tmp_path, [[TOKENS], [answer(b"no")]]) as (_, upstream, address):
        assert await list_tokens(upstream, Replica("v1-0", "m", "v1", address, "m"), "a", "b") == [[7, 8], None]
