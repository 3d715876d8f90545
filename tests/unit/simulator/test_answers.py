import pytest

from gateway.simulator.answers import (
    Answer,
    RefusalError,
    count_usage,
    encode,
    event,
    frame,
    read_chat,
    require_list,
    split,
)
from gateway.simulator.text import Choice, read_text

CHOICE = Choice(("a", " b", " c"), (1, 2, 3), "stop")
ANSWER = Answer("i", 0, "m", read_text("hi"), (CHOICE, CHOICE), 2, {})


def test_json_is_compact_and_keeps_letters() -> None:
    assert encode({"a": "ü", "b": None}) == '{"a":"ü","b":null}'.encode()
    assert encode("\ud800") == b'"?"'


def test_frames() -> None:
    assert frame([1]) == b"data: [1]\n\n"
    assert event("stop", {}) == b"event: stop\ndata: {}\n\n"


def test_usage_counts_all_choices() -> None:
    assert count_usage(ANSWER) == {"prompt_tokens": 2, "total_tokens": 8, "completion_tokens": 6}
    assert count_usage(ANSWER, 1)["total_tokens"] == 3


def test_splitting_keeps_text_and_ids_together() -> None:
    assert list(split(ANSWER, CHOICE)) == [("a b", (1, 2)), (" c", (3,))]


def test_lists_are_required() -> None:
    with pytest.raises(RefusalError):
        require_list({}, "messages")
    assert require_list({"messages": [{}]}, "messages") == [{}]


def test_content_may_be_missing_or_in_parts() -> None:
    assert read_chat({"messages": [{"role": "assistant"}, {"role": "user", "content": [{"text": "x"}]}]}).ids
