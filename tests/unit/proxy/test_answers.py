import json

import msgspec
import pytest

from gateway.proxy.answers import read_question, read_text
from gateway.proxy.body import parse_fields

CHAT = {"choices": [{"index": 1, "message": {"content": "other"}}, {"index": 0, "message": {"content": "a circle"}}]}
COMPLETION = {"choices": [{"index": 0, "text": "a circle"}]}
RESPONSE = {"output": [
    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
    {"type": "message", "content": [{"type": "output_text", "text": "a circle"}]},
]}  # fmt: skip
MESSAGE = {"type": "message", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "circle"}]}


@pytest.mark.parametrize("document", [CHAT, COMPLETION, RESPONSE, MESSAGE])
def test_whole_answers_are_read_in_each_protocol(document: object) -> None:
    assert read_text(json.dumps(document).encode(), is_stream=False) == "a circle"


CHAT_EVENTS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"content": "a "}}, {"index": 1, "delta": {"content": "no"}}]},
    {"choices": [{"index": 0, "delta": {"content": "circle"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
]
COMPLETION_EVENTS = [{"choices": [{"index": 0, "text": "a "}]}, {"choices": [{"index": 0, "text": "circle"}]}]
RESPONSE_EVENTS = [
    {"type": "response.created", "response": {}},
    {"type": "response.reasoning_text.delta", "delta": "hm"},
    {"type": "response.output_text.delta", "delta": "a "},
    {"type": "response.output_text.delta", "delta": "circle"},
    {"type": "response.output_text.done", "text": "a circle"},
    {"type": "response.completed", "response": {"output": RESPONSE["output"]}},
]
MESSAGE_EVENTS = [
    {"type": "message_start", "message": {"content": []}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a "}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "circle"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
]


@pytest.mark.parametrize("events", [CHAT_EVENTS, COMPLETION_EVENTS, RESPONSE_EVENTS, MESSAGE_EVENTS])
@pytest.mark.parametrize("blank", ["\n\n", "\r\n\r\n"])
def test_streams_are_read_in_each_protocol(events: list[object], blank: str) -> None:
    stream = "".join(f"event: x\ndata: {json.dumps(event)}{blank}" for event in events) + f"data: [DONE]{blank}"
    assert read_text(stream.encode(), is_stream=True) == "a circle"


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b'{"choices": 5}', b"\xff", b'{"choices":[{"message":null}]}'])
def test_what_cannot_be_read_says_nothing(document: bytes) -> None:
    assert read_text(document, is_stream=False) == read_text(b"data: " + document + b"\n\n", is_stream=True) == ""


PICTURE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"messages": [{"role": "user", "content": "old"}, {"role": "assistant", "content": "x"},
                       {"role": "user", "content": [PICTURE, {"type": "text", "text": "which?"}]}]}, "which?"),
        ({"input": "which?"}, "which?"), ({"prompt": "which?"}, "which?"),
        ({"messages": []}, ""), ({"messages": 5}, ""), ({"prompt": [1, 2]}, ""), ({}, ""),
    ],
)  # fmt: skip
def test_a_question_is_the_last_turn_of_the_user(body: dict[str, object], asked: str) -> None:
    assert read_question(parse_fields(msgspec.json.encode(body))) == asked
