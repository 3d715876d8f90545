import json
from typing import Any

import pytest

from gateway.errors import BadRequest
from gateway.proxy import beginning as module
from gateway.proxy.beginning import read_beginning
from gateway.proxy.body import parse_fields
from tests.support.too_deep import TooDeep

SYSTEM = {"role": "system", "content": "You look at shapes."}


def beginning(**fields: Any) -> bytes:
    return read_beginning(parse_fields(json.dumps(fields).encode()))


def user(text: str, *pictures: str) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def test_the_turns_of_a_conversation_share_it() -> None:
    first = [SYSTEM, {"role": "user", "content": "What is this?"}]
    later = [*first, {"role": "assistant", "content": "red"}, {"role": "user", "content": "And that?"}]
    assert beginning(messages=first) == beginning(messages=later) != b""


def test_other_conversations_have_another() -> None:
    seen = {beginning(messages=[SYSTEM, {"role": "user", "content": f"question {n}"}]) for n in range(20)}
    seen.add(beginning(messages=[{"role": "user", "content": "question 1"}]))
    assert len(seen) == 21


def test_questions_about_the_same_picture_share_it_and_other_pictures_do_not() -> None:
    assert beginning(messages=[user("colour?", "data:a")]) == beginning(messages=[user("shape?", "data:a")])
    assert beginning(messages=[user("colour?", "data:a")]) != beginning(messages=[user("colour?", "data:b")])


@pytest.mark.parametrize("place", [0, 50_000, 99_999])
def test_long_pictures_are_told_apart_at_their_ends_and_by_length(place: int) -> None:
    picture = "x" * 100_000
    other = picture[:place] + "y" + picture[place + 1 :]
    is_same = beginning(messages=[user("?", picture)]) == beginning(messages=[user("?", other)])
    assert is_same is (place == 50_000)
    assert beginning(messages=[user("?", picture)]) != beginning(messages=[user("?", picture + "x")])


@pytest.mark.parametrize(
    "fields", [{"prompt": "Once"}, {"input": "Once"}, {"input": [{"role": "user", "content": "Once"}]}]
)
def test_other_routes_have_one_too(fields: dict[str, Any]) -> None:
    assert len(beginning(**fields)) == 16


@pytest.mark.parametrize("messages", [5, "text", [1, 2], [{"role": 5}], [{"content": {"a": 1}}], [], None])
def test_nonsense_is_left_to_the_engine(messages: Any) -> None:
    assert len(beginning(messages=messages)) == 16
    assert beginning(model="shapes") == b""


@pytest.mark.parametrize("decoder", ["_turns_decoder", "_parts_decoder", "_part_decoder"])
def test_what_is_nested_too_deeply_is_refused(monkeypatch: pytest.MonkeyPatch, decoder: str) -> None:
    monkeypatch.setattr(module, decoder, TooDeep())
    with pytest.raises(BadRequest, match="nested too deeply"):
        beginning(messages=[user("?", "data:a")])
