import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamFailed
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.sse import EventStream, Renaming, error_event, read_usage

CHAT = ENDPOINTS["/v1/chat/completions"]
FIRST = b'data: {"id":"1","model":"shapes","choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
WORD = 'data: {"id":"1","model":"shapes","choices":[{"delta":{"content":"r\u00f6t \\"usage\\": \\"choices\\":[]"}}]}\n\n'.encode()
USAGE = b'data: {"id":"1","model":"shapes","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
WHOLE = FIRST + COMMENT + WORD + USAGE + DONE


def relay(
    pieces: list[bytes], *, hides_usage: bool = True, renaming: Renaming | None = None
) -> tuple[bytes, EventStream]:
    events = EventStream(CHAT, hides_usage=hides_usage, renaming=renaming)
    out = b"".join(events.feed(piece) for piece in pieces)
    return out + events.flush(), events


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in pairwise(ends) if start < end]


def test_whole_events_pass_as_the_same_object() -> None:
    events = EventStream(CHAT, hides_usage=True)
    assert events.feed(WORD) is WORD


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_the_result_does_not_depend_on_where_the_bytes_are_cut(places: list[int]) -> None:
    out, events = relay(cut(WHOLE, places))
    assert out == FIRST + COMMENT + WORD + DONE
    assert events.has_ended
    assert events.usage is not None
    assert (events.usage.tokens_in, events.usage.tokens_out) == (7, 2)


@given(st.lists(st.integers(0, len(WHOLE) + 5), max_size=8))
def test_lines_may_end_in_crlf(places: list[int]) -> None:
    data = WHOLE.replace(b"\n", b"\r\n")
    out, events = relay(cut(data, places))
    assert out == (FIRST + COMMENT + WORD + DONE).replace(b"\n", b"\r\n")
    assert events.has_ended


def test_usage_is_shown_to_those_who_asked() -> None:
    out, events = relay([WHOLE], hides_usage=False)
    assert out == WHOLE
    assert events.usage is not None


def test_continuous_usage_on_chunks_with_choices_is_kept() -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
    out, _ = relay([chunk, DONE])
    assert out == chunk + DONE


def test_the_first_model_of_each_event_is_renamed() -> None:
    out, _ = relay(cut(WHOLE, [10, 50, 51, 200]), renaming=Renaming("shapes", "shapes:v1"))
    assert out == (FIRST + COMMENT + WORD + DONE).replace(b'"model":"shapes"', b'"model":"shapes:v1"')


def test_renaming_leaves_strings_alone_that_speak_of_models() -> None:
    document = json.dumps({"text": '"model":"shapes"', "model": "shapes"}).encode()
    renamed = json.loads(Renaming("shapes", "public").apply(document))
    assert renamed == {"text": '"model":"shapes"', "model": "public"}


def test_an_event_without_its_blank_line_comes_out_at_the_end() -> None:
    out, events = relay([FIRST, b"data: [DO"])
    assert out == FIRST + b"data: [DO"
    assert not events.has_ended


def test_text_that_looks_like_the_end_is_not_the_end() -> None:
    _, events = relay([b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n'])
    assert not events.has_ended


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        (
            "/v1/responses",
            b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":3,"output_tokens":4}}}\n\n',
        ),
        ("/v1/messages", b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
    ],
)
def test_each_protocol_has_its_own_end(path: str, ending: bytes) -> None:
    events = EventStream(ENDPOINTS[path], hides_usage=True)
    assert events.feed(b"event: x\ndata: {}\n\n" + ending).endswith(ending)
    assert events.has_ended


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.proxy.sse._MAX_EVENT_BYTES", 100)
    events = EventStream(CHAT, hides_usage=True)
    with pytest.raises(UpstreamFailed):
        for _ in range(20):
            events.feed(b"data: xxxx")


@pytest.mark.parametrize(
    ("document", "counts"),
    [
        (b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4, "extra": {}}}', (3, 4)),
        (b'{"response": {"usage": {"input_tokens": 5, "output_tokens": 6}}}', (5, 6)),
        (b'{"usage": null}', None),
        (b'{"usage": "none"}', None),
        (b"[]", None),
        (b"not json", None),
    ],
)
def test_usage_is_read_in_every_naming(document: bytes, counts: tuple[int, int] | None) -> None:
    usage = read_usage(document)
    assert (usage and (usage.tokens_in, usage.tokens_out)) == counts


def test_broken_streams_end_in_the_manner_of_their_protocol() -> None:
    error = UpstreamFailed("It broke.")
    assert error_event(error, CHAT).endswith(b"\n\ndata: [DONE]\n\n")
    assert (
        json.loads(error_event(error, CHAT).split(b"\n")[0].removeprefix(b"data: "))["error"]["message"] == "It broke."
    )
    anthropic = error_event(error, ENDPOINTS["/v1/messages"])
    assert anthropic.startswith(b"event: error\ndata: ")
    assert json.loads(anthropic.splitlines()[1].removeprefix(b"data: "))["type"] == "error"
    assert (
        json.loads(error_event(error, ENDPOINTS["/v1/responses"]).splitlines()[1].removeprefix(b"data: "))["message"]
        == "It broke."
    )
