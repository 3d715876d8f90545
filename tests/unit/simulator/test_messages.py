import json

import pytest

from gateway.simulator.answers import Answer
from gateway.simulator.messages import MESSAGE
from gateway.simulator.text import Choice, read_text


def make(finish_reason: str) -> Answer:
    return Answer("c-1", 7, "m", read_text("hi"), (Choice(("a", " b"), (300, 301), finish_reason),), 1, {})


@pytest.mark.parametrize(("finish_reason", "stop_reason"), [("stop", "end_turn"), ("length", "max_tokens")])
def test_a_whole_message(finish_reason: str, stop_reason: str) -> None:
    whole = MESSAGE.write_whole(make(finish_reason))
    assert (whole["content"], whole["stop_reason"]) == ([{"type": "text", "text": "a b"}], stop_reason)
    assert whole["usage"] == {"input_tokens": 2, "output_tokens": 2}


def test_a_stream_has_the_events_in_order() -> None:
    frames = [frame for group in MESSAGE.write_stream(make("stop")) for frame in group]
    bodies = [json.loads(frame.decode().split("\ndata: ")[1]) for frame in frames]
    assert [body["type"] for body in bodies] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert bodies[0]["message"]["stop_reason"] is None
    assert bodies[5]["usage"]["output_tokens"] == 2


def test_the_system_text_is_part_of_the_prompt() -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]}
    assert len(MESSAGE.read_prompt(body | {"system": "be kind"}).ids) > len(MESSAGE.read_prompt(body).ids)
