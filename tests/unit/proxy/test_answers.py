import json

import msgspec
import pytest

from gateway.proxy.answers import Said, read_answer, read_question
from gateway.proxy.body import parse_fields

CHAT = {"choices": [{"index": 1, "message": {"content": "other"}}, {"index": 0, "message": {"content": "a circle"}}]}
COMPLETION = {"choices": [{"index": 0, "text": "a circle"}]}
RESPONSE = {"output": [
    {"type": "message", "content": [{"type": "output_text", "text": "a circle"}]},
]}  # fmt: skip
MESSAGE = {"type": "message", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "circle"}]}


@pytest.mark.parametrize("document", [CHAT, COMPLETION, RESPONSE, MESSAGE])
def test_whole_answers_are_read_in_each_protocol(document: object) -> None:
    assert read_answer(json.dumps(document).encode(), is_stream=False) == Said("a circle", is_plain=True)


CHAT_EVENTS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"content": "a "}}, {"index": 1, "delta": {"content": "no"}}]},
    {"choices": [{"index": 0, "delta": {"content": "circle"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
]
COMPLETION_EVENTS = [{"choices": [{"index": 0, "text": "a "}]}, {"choices": [{"index": 0, "text": "circle"}]}]
RESPONSE_EVENTS = [
    {"type": "response.created", "response": {}},
    {"type": "response.output_item.added", "item": {"type": "message", "content": []}},
    {"type": "response.output_text.delta", "delta": "a "},
    {"type": "response.output_text.delta", "delta": "circle"},
    {"type": "response.output_text.done", "text": "a circle"},
    {"type": "response.completed", "response": {"output": RESPONSE["output"]}},
]
MESSAGE_EVENTS = [
    {"type": "message_start", "message": {"content": []}},
    {"type": "content_block_start", "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a "}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "circle"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
]


@pytest.mark.parametrize("events", [CHAT_EVENTS, COMPLETION_EVENTS, RESPONSE_EVENTS, MESSAGE_EVENTS])
@pytest.mark.parametrize("blank", ["\n\n", "\r\n\r\n"])
def test_streams_are_read_in_each_protocol(events: list[object], blank: str) -> None:
    assert read_answer(write_stream(events, blank), is_stream=True) == Said("a circle", is_plain=True)


def write_stream(events: list[object], blank: str = "\n\n") -> bytes:
    stream = "".join(f"event: x\ndata: {json.dumps(event)}{blank}" for event in events) + f"data: [DONE]{blank}"
    return stream.encode()


CALL = {"function": {"name": "look", "arguments": '{"at":1}'}}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"choices": [{"message": {"reasoning": "hm", "content": "x"}}]}, "hmx"),
        ({"choices": [{"message": {"reasoning_content": "hm", "content": None}}]}, "hm"),
        ({"choices": [{"message": {"content": None, "tool_calls": [CALL]}}]}, 'look{"at":1}'),
        ({"output": [{"type": "reasoning", "content": [{"text": "hm"}]}, {"type": "message", "content": []}]}, "hm"),
        ({"output": [{"type": "function_call", "name": "look", "arguments": "{}"}]}, "look{}"),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "x"}]}, "hmx"),
        ({"content": [{"type": "tool_use", "name": "look", "input": {"at": 1}}]}, 'look{"at": 1}'),
    ],
)
def test_reasoning_and_calls_of_tools_are_part_of_an_answer(document: object, said: str) -> None:
    assert read_answer(json.dumps(document).encode(), is_stream=False) == Said(said, is_plain=False)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([{"choices": [{"delta": {"reasoning": "h"}}]}, {"choices": [{"delta": {"reasoning": "m"}}]}], "hm"),
        ([{"choices": [{"delta": {"tool_calls": [{"function": {"name": "look", "arguments": ""}}]}}]},
          {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]}], "look{}"),
        ([{"type": "response.reasoning_text.delta", "delta": "hm"}], "hm"),
        ([{"type": "response.output_item.added", "item": {"type": "function_call", "name": "look"}},
          {"type": "response.function_call_arguments.delta", "delta": "{}"}], "look{}"),
        ([{"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}], "hm"),
        ([{"type": "content_block_start", "content_block": {"type": "tool_use", "name": "look", "input": {}}},
          {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{}"}}], "look{}"),
    ],
)  # fmt: skip
def test_in_streams_too(events: list[object], said: str) -> None:
    assert read_answer(write_stream(events), is_stream=True) == Said(said, is_plain=False)


def test_an_answer_that_says_nothing_is_one() -> None:
    assert read_answer(b'{"choices":[{"message":{"content":""}}]}', is_stream=False) == Said("", is_plain=True)


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b'{"choices": 5}', b"\xff", b'{"choices":[{"message":null}]}'])
def test_what_cannot_be_read_is_no_answer(document: bytes) -> None:
    assert read_answer(document, is_stream=False) is None
    assert read_answer(b"data: " + document + b"\n\n", is_stream=True) is None


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
