import json
from typing import Any

import pytest

from gateway.simulator.answers import Answer
from gateway.simulator.openai import CHAT, COMPLETION
from gateway.simulator.text import Choice, read_text


def make(*choices: Choice, **body: Any) -> Answer:
    return Answer("id-1", 7, "m", read_text("hi"), choices, 1, body)


LONG = Choice(("a", " b", " c"), (300, 301, 302), "length")
ENDED = Choice(("a", " b"), (300, 301), "stop")


def read(groups: list[list[bytes]]) -> list[list[Any]]:
    """The JSON of every frame; None for the end mark."""
    read_groups = []
    for group in groups:
        assert all(
            frame.startswith(b"data: ") and frame.endswith(b"\n\n") and frame.count(b"\n") == 2 for frame in group
        )
        read_groups.append([None if b"[DONE]" in frame else json.loads(frame[6:]) for frame in group])
    return read_groups


def test_a_chat_stream_begins_with_the_role_beside_the_first_token() -> None:
    first, *_ = read(list(CHAT.write_stream(make(LONG))))
    assert first[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first[1]["choices"][0]["delta"] == {"content": "a"}
    assert (first[0]["id"], first[0]["object"], first[0]["model"]) == ("id-1", "chat.completion.chunk", "m")


def test_an_answer_cut_short_ends_with_its_last_token() -> None:
    *_, last, done = read(list(CHAT.write_stream(make(LONG))))
    assert last[0]["choices"][0] | {"logprobs": 0} == {
        "index": 0,
        "delta": {"content": " c"},
        "logprobs": 0,
        "finish_reason": "length",
        "stop_reason": None,
        "token_ids": None,
    }
    assert done == [None]


def test_an_answer_that_ends_by_itself_has_an_empty_last_chunk() -> None:
    groups = read(list(CHAT.write_stream(make(ENDED))))
    assert [group[-1]["choices"][0]["delta"]["content"] for group in groups[:-1]] == ["a", " b", ""]
    assert groups[-2][0]["choices"][0]["finish_reason"] == "stop"


def test_usage_comes_before_the_end_when_asked_for() -> None:
    groups = read(list(CHAT.write_stream(make(ENDED, stream_options={"include_usage": True}))))
    usage, done = groups[-1]
    assert done is None
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 2, "total_tokens": 4, "completion_tokens": 2}
    assert all("usage" not in frame for group in groups[:-1] for frame in group)


def test_continuous_usage_counts_up() -> None:
    groups = read(list(CHAT.write_stream(make(LONG, stream_options={"continuous_usage_stats": True}))))
    counts = [frame["usage"]["completion_tokens"] for group in groups[:-1] for frame in group]
    assert counts == [0, 1, 2, 3]


def test_several_choices_come_side_by_side() -> None:
    groups = read(list(CHAT.write_stream(make(LONG, ENDED))))
    assert [frame["choices"][0]["index"] for frame in groups[0]] == [0, 1, 0, 1]
    ends = [frame for group in groups[:-1] for frame in group if frame["choices"][0]["finish_reason"]]
    assert [end["choices"][0]["index"] for end in ends] == [0, 1]


def test_an_empty_answer_still_streams_role_and_end() -> None:
    groups = read(list(CHAT.write_stream(make(Choice((), (), "stop")))))
    assert [len(group) for group in groups] == [2, 1]


def test_token_ids_and_logprobs_when_asked_for() -> None:
    asked = {"return_token_ids": True, "logprobs": True, "top_logprobs": 1}
    whole = CHAT.write_whole(make(LONG, **asked))
    assert whole["prompt_token_ids"] == [104, 105]
    assert whole["choices"][0]["token_ids"] == [300, 301, 302]
    assert [entry["token"] for entry in whole["choices"][0]["logprobs"]["content"]] == ["a", " b", " c"]
    groups = read(list(CHAT.write_stream(make(LONG, **asked))))
    assert groups[0][0]["prompt_token_ids"] == [104, 105]
    assert [group[-1]["choices"][0]["token_ids"] for group in groups[:-1]] == [[300], [301], [302]]
    assert groups[1][0]["choices"][0]["logprobs"]["content"][0]["token"] == " b"


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETION])
def test_streamed_and_whole_text_are_the_same(endpoint: Any) -> None:
    whole = endpoint.write_whole(make(LONG))
    streamed = ""
    for group in read(list(endpoint.write_stream(make(LONG)))):
        for frame in group:
            choice = frame["choices"][0] if frame else {}
            streamed += choice.get("text", "") + choice.get("delta", {}).get("content", "")
    text = whole["choices"][0].get("text") or whole["choices"][0]["message"]["content"]
    assert streamed == text == "a b c"
    assert whole["usage"]["completion_tokens"] == 3


def test_chunks_hold_several_tokens_when_told_to() -> None:
    answer = Answer("id-1", 7, "m", read_text("hi"), (LONG,), 2, {})
    assert [group[-1]["choices"][0]["delta"]["content"] for group in read(list(CHAT.write_stream(answer)))[:-1]] == [
        "a b",
        " c",
    ]


def test_a_completion_stream() -> None:
    groups = read(list(COMPLETION.write_stream(make(LONG, stream_options={"include_usage": True}))))
    assert [group[0]["choices"][0]["finish_reason"] for group in groups[:-1]] == [None, None, "length"]
    assert groups[-1][0]["usage"]["total_tokens"] == 5
    assert groups[-1][1] is None
