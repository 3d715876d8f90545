from typing import Any

import pytest

from gateway.simulator.answers import Answer, RefusalError
from gateway.simulator.generation import find_model, make_answer, read_body
from gateway.simulator.openai import CHAT, COMPLETION
from gateway.simulator.options import Options

JSON = "application/json"
OPTIONS = Options(names=("m", "alias"), adapters={"lora": "/l"}, max_model_len=64)


def ask(request_id: str | None = None, **body: Any) -> Answer:
    return make_answer(OPTIONS, CHAT, {"messages": [{"role": "user", "content": "hi"}]} | body, request_id)


def test_a_reply_carries_the_first_name_or_the_adapters() -> None:
    assert find_model(OPTIONS, {}) == ("m", "")
    assert find_model(OPTIONS, {"model": "alias"}) == ("m", "")
    assert find_model(OPTIONS, {"model": "lora"}) == ("lora", "lora")
    with pytest.raises(RefusalError, match="does not exist") as caught:
        find_model(OPTIONS, {"model": "x"})
    assert (caught.value.code, caught.value.kind, caught.value.param) == (404, "NotFoundError", "model")


def test_an_adapter_answers_otherwise() -> None:
    assert ask(model="lora").choices != ask(model="m").choices


def test_the_seed_matters_only_when_sampling() -> None:
    assert ask(temperature=0, seed=1).choices == ask(temperature=0, seed=2).choices
    assert ask(seed=1).choices != ask(seed=2).choices
    assert ask(seed=1).choices == ask(seed=1).choices


def test_choices_differ_and_ids_follow_the_request() -> None:
    answer = ask(n=3, request_id="abc")
    assert len({choice.text for choice in answer.choices}) == 3
    assert answer.id == "chatcmpl-abc"


def test_limits() -> None:
    assert ask(max_tokens=3).completion_tokens == 3
    assert ask(max_completion_tokens=2, max_tokens=3).completion_tokens == 2
    assert ask(max_tokens=40, ignore_eos=True).completion_tokens == 40
    assert ask(max_tokens=40).completion_tokens == OPTIONS.tokens


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 60}, "max_tokens"),
        ({"max_tokens": "5"}, "body.max_tokens"),
        ({"max_tokens": 1.5}, "body.max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "body.temperature"),
        ({"temperature": True}, "body.temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"n": 0}, "n"),
        ({"seed": 1.5}, "body.seed"),
        ({"stop": 3}, "body.stop"),
        ({"stop": [""]}, "body.stop"),
        ({"model": ["m"]}, "body.model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "body.messages"),
        ({"messages": [{"content": "hi"}]}, "body.messages"),
        ({"messages": [{"role": "user", "content": 3}]}, "body.messages"),
        ({"messages": [{"role": "user", "content": "x" * 100}]}, "input_tokens"),
    ],
)
def test_bad_requests_name_the_field(body: dict[str, Any], param: str) -> None:
    with pytest.raises(RefusalError) as caught:
        ask(**body)
    assert (caught.value.code, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("content_type", "raw"),
    [
        ("text/plain", b"{}"),
        ("", b"{}"),
        ("application/json", b"{"),
        ("application/json", b""),
        ("application/json", b"[]"),
    ],
)
def test_bodies_that_are_no_json_object(content_type: str, raw: bytes) -> None:
    with pytest.raises(RefusalError) as caught:
        read_body(content_type, raw)
    assert caught.value.code == 400


def test_a_charset_is_no_harm() -> None:
    assert read_body("Application/JSON; charset=utf-8", b'{"a":1}') == {"a": 1}


@pytest.mark.parametrize("prompt", ["hi", ["hi"], [104, 105], [[104, 105]]])
def test_prompts_of_completions(prompt: object) -> None:
    assert make_answer(OPTIONS, COMPLETION, {"prompt": prompt}, None).prompt.ids == (104, 105)


@pytest.mark.parametrize("prompt", ["", [], None, 3, ["a", "b"], [1, "a"]])
def test_bad_prompts_of_completions(prompt: object) -> None:
    with pytest.raises(RefusalError):
        make_answer(OPTIONS, COMPLETION, {"prompt": prompt}, None)


def test_wrong_guesses_change_answers_where_there_are_guesses() -> None:
    def answer(guessed_tokens: int, faults: dict[str, float]) -> str:
        options = Options(guessed_tokens=guessed_tokens, faults=faults)
        body = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
        return make_answer(options, CHAT, body, None).choices[0].text

    assert answer(4, {}) == answer(0, {}) == answer(0, {"wrong-guess": 0}) != answer(4, {"wrong-guess": 0})
