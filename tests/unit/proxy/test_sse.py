import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamFailed
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.sse import (
    EventStream,
    Renaming,
    error_event,
    read_end,
    read_events,
    read_finish,
    read_stream_usage,
    read_usage,
)

CHAT = ENDPOINTS["/v1/chat/completions"]
FIRST = b'data: {"id":"1","model":"shapes","choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
WORD = 'data: {"id":"1","model":"shapes","choices":[{"delta":{"content":"r\u00f6t \\"usage\\": \\"choices\\":[]"}}]}\n\n'.encode()
USAGE = b'data: {"id":"1","model":"shapes","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
LOOSE = (
    b'data: {"id": "1", "model": "shapes", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}\n\n'
)
CONTINUOUS = b'data: {"model":"shapes","choices":[{"delta":{}}],"usage":{"prompt_tokens":7,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
NAMED = b'event: x\nid: 7\ndata: {"model":"shapes",\ndata: "choices":[{}]}\n\n'
LONG = b'data: {"model":"shapes","choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"x" * 500)
EMPTY = b"data:\n\n"
BLANK = b"\n"
WHOLE = FIRST + COMMENT + WORD + USAGE + DONE

Cut = list[int]


def crlf(events: bytes) -> bytes:
    return events.replace(b"\n", b"\r\n")


def relay(
    pieces: list[bytes], *, hides_usage: bool = True, renaming: Renaming | None = None
) -> tuple[bytes, EventStream]:
    events = EventStream(CHAT, hides_usage=hides_usage, renaming=renaming)
    out = b"".join(events.feed(piece) for piece in pieces)
    return out + events.flush(), events


def cut(data: bytes, places: Cut) -> list[bytes]:
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(ends) if start < end]


def expected(events: list[bytes], *, hides_usage: bool, renamed: str | None) -> bytes:
    """What a client should see, event by event; the plain way to say what the stream does."""
    shown = (event for event in events if not (hides_usage and event.strip() in (USAGE.strip(), LOOSE.strip())))
    named = json.dumps(renamed or "shapes").encode()
    return b"".join(event.replace(b'"shapes"', named) for event in shown)


KINDS = [FIRST, WORD, USAGE, LOOSE, CONTINUOUS, COMMENT, NAMED, LONG, EMPTY, BLANK]
CRLF_KINDS = [crlf(kind) for kind in KINDS]
TIDY = [[FIRST, COMMENT, WORD, BLANK, USAGE, DONE], [FIRST, NAMED, BLANK, BLANK, CONTINUOUS, EMPTY, LOOSE, DONE]]
STREAMS = [
    *TIDY,
    *([crlf(event) for event in events] for events in TIDY),
    [FIRST, crlf(COMMENT), WORD, crlf(COMMENT), USAGE, DONE],
]


def test_whole_events_pass_as_the_same_object() -> None:
    events = EventStream(CHAT, hides_usage=True)
    for event in (WORD, crlf(WORD), WORD + WORD, COMMENT + DONE):
        assert events.feed(event) is event


@pytest.mark.parametrize("events", STREAMS)
@pytest.mark.parametrize("hides_usage", [True, False])
@pytest.mark.parametrize("renamed", [None, "shapes:v1"])
def test_a_cut_at_any_place_changes_nothing(events: list[bytes], hides_usage: bool, renamed: str | None) -> None:
    data = b"".join(events)
    renaming = Renaming("shapes", renamed) if renamed else None
    wanted = expected(events, hides_usage=hides_usage, renamed=renamed)
    for place in range(len(data)):
        out, stream = relay(cut(data, [place]), hides_usage=hides_usage, renaming=renaming)
        assert out == wanted
        assert stream.has_ended
        assert stream.usage is not None
        assert (stream.usage.tokens_in, stream.usage.tokens_out) == (7, 2)
    single = [bytes([one]) for one in data]
    assert relay(single, hides_usage=hides_usage, renaming=renaming)[0] == wanted


@given(
    st.lists(st.sampled_from(KINDS), max_size=8) | st.lists(st.sampled_from(CRLF_KINDS), max_size=8),
    st.lists(st.integers(0, 5000), max_size=20),
    st.booleans(),
    st.sampled_from([None, "shapes:v1", 'a "name"\n']),
)
def test_cuts_at_many_places_change_nothing(
    events: list[bytes], places: Cut, hides_usage: bool, renamed: str | None
) -> None:
    data = b"".join(events)
    renaming = Renaming("shapes", renamed) if renamed else None
    out, stream = relay(cut(data, places), hides_usage=hides_usage, renaming=renaming)
    assert out == expected(events, hides_usage=hides_usage, renamed=renamed)
    reports = {USAGE.strip(), LOOSE.strip(), CONTINUOUS.strip()}
    assert (stream.usage is not None) == any(event.strip() in reports for event in events)
    assert not stream.has_ended


@given(st.lists(st.sampled_from([*KINDS, *CRLF_KINDS, DONE, b"data: cut off", b"\n", b"\r", b"\r\n", b"\n\n\n"]), max_size=8),
       st.lists(st.integers(0, 5000), max_size=20), st.booleans())  # fmt: skip
def test_streams_in_disorder_come_out_the_same_however_they_are_cut(
    events: list[bytes], places: Cut, is_renamed: bool
) -> None:
    data = b"".join(events)
    renaming = Renaming("shapes", "public") if is_renamed else None
    uncut, whole = relay([data] if data else [], renaming=renaming)
    out, stream = relay(cut(data, places), renaming=renaming)
    assert out == uncut
    assert (stream.has_ended, stream.usage) == (whole.has_ended, whole.usage)


@given(st.lists(st.integers(0, 5000), max_size=20))
def test_whole_events_are_passed_on_as_soon_as_they_are_in(places: Cut) -> None:
    data, stream, fed, out = WORD * 5, EventStream(CHAT, hides_usage=True), b"", b""
    for piece in cut(data, places):
        fed += piece
        out += stream.feed(piece)
        assert out == WORD * (len(fed) // len(WORD))


def test_events_are_counted_in_either_line_ending() -> None:
    for data in (FIRST + COMMENT + WORD, crlf(FIRST + COMMENT + WORD), FIRST + crlf(COMMENT) + WORD):
        for place in range(len(data)):
            assert relay(cut(data, [place]))[1].event_count == 3


class Piece(bytes):
    """Bytes that keep count of what is joined to them."""

    copied = 0

    def __add__(self, other: bytes) -> "Piece":
        Piece.copied += len(self) + len(other)
        return Piece(bytes(self) + other)

    def __radd__(self, other: bytes) -> "Piece":
        Piece.copied += len(self) + len(other)
        return Piece(other + bytes(self))


def test_a_long_event_in_tiny_pieces_takes_linear_work() -> None:
    event = b"data: " + b"x" * 100_000
    events = EventStream(CHAT, hides_usage=True)
    for at in range(0, len(event), 4):
        assert events.feed(Piece(event[at : at + 4])) == b""
        assert len(events._tail) <= 3
    assert Piece.copied < 8 * len(event)
    assert events.feed(b"\n") == b""
    assert events.feed(b"\n") == event + b"\n\n"
    assert (events._held, events._held_bytes, events._tail) == ([], 0, b"")


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


def test_a_name_that_needs_no_change_or_is_absent_is_left() -> None:
    renaming = Renaming("shapes", "public")
    for document in (b'{"model":"other"}', b"{}", b"", b'{"model": null}'):
        assert renaming.apply(document) is document


def test_an_event_without_its_blank_line_comes_out_at_the_end() -> None:
    out, events = relay([FIRST, b"data: [DO"])
    assert out == FIRST + b"data: [DO"
    assert not events.has_ended
    assert events.flush() == b""


def test_a_last_event_without_its_blank_line_ends_the_stream() -> None:
    for ending in (b"data: [DONE]", b"data: [DONE]\n", b"data: [DONE]\r\n"):
        out, events = relay([FIRST, ending])
        assert out == FIRST + ending
        assert events.has_ended


@pytest.mark.parametrize("ending", [b"data:[DONE]\n\n", b"data: [DONE]\r\n\r\n", b": bye\ndata: [DONE]\n\n"])
def test_the_end_is_seen_however_it_is_written(ending: bytes) -> None:
    for chunks in ([FIRST + ending], [FIRST, ending], [FIRST, ending, COMMENT]):
        out, events = relay(chunks)
        assert out == b"".join(chunks)
        assert events.has_ended


@pytest.mark.parametrize("text", [b"data: [DONE]", b"\\ndata: [DONE]"])
def test_text_that_looks_like_the_end_is_not_the_end(text: bytes) -> None:
    _, events = relay([b'data: {"choices":[{"delta":{"content":"' + text + b'"}}]}\n\n'])
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
        (b'{"usage": {"prompt_tokens": "many"}}', None),
        (b"\xff", None),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
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


@pytest.mark.parametrize("count", [10**20, 10**13, -5, 1.5, "7"])
def test_a_count_that_cannot_be_is_no_usage(count: object) -> None:
    document = json.dumps({"usage": {"prompt_tokens": 3, "completion_tokens": count}}).encode()
    assert read_usage(document) is None


LENGTH = b'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"length"}]}\n\n'
PLAIN = b'data: {"choices":[{"index":0,"delta":{"content":"\\"finish_reason\\":\\"x"},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize("place", range(0, len(PLAIN + LENGTH + USAGE), 7))
def test_a_stream_tells_why_it_ended_wherever_it_is_cut(place: int) -> None:
    events = EventStream(CHAT, hides_usage=True, notes_finish=True)
    out = b"".join(events.feed(piece) for piece in cut(PLAIN + LENGTH + USAGE + DONE, [place]))
    assert (events.finish, out) == ("length", PLAIN + LENGTH + DONE)


def test_the_last_plain_event_does_not_take_the_shortcut_where_its_reason_is_wanted() -> None:
    wanted = EventStream(CHAT, hides_usage=True, notes_finish=True).stops
    assert any(stop in LENGTH for stop in wanted)
    assert not any(stop in PLAIN for stop in wanted)
    assert not any(stop in LENGTH for stop in EventStream(CHAT, hides_usage=True).stops)


@pytest.mark.parametrize(
    ("path", "event", "finish"),
    [
        ("/v1/messages", b'event: message_delta\ndata: {"delta":{"stop_reason":"max_tokens"},"usage":{}}\n\n', "length"),
        ("/v1/messages", b'event: message_delta\ndata: {"delta":{"stop_reason":"end_turn"},"usage":{}}\n\n', "stop"),
        ("/v1/responses", b'data: {"response":{"status":"completed","usage":{}}}\n\n', "stop"),
        ("/v1/responses", b'data: {"response":{"incomplete_details":{"reason":"max_output_tokens"},"usage":{}}}\n\n', "length"),
        ("/v1/chat/completions", b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n', "stop"),
    ],
)  # fmt: skip
def test_streams_of_all_protocols_tell_why_they_ended(path: str, event: bytes, finish: str) -> None:
    events = EventStream(ENDPOINTS[path], hides_usage=False, notes_finish=True)
    events.feed(event)
    assert events.finish == finish


@pytest.mark.parametrize(
    ("document", "finish"),
    [
        (b'{"choices":[{"finish_reason":"tool_calls","message":{"refusal":null}}]}', "tool_calls"),
        (b'{"choices":[{"finish_reason":"stop","message":{"refusal":"I can not."}}]}', "content_filter"),
        (b'{"choices":[{"finish_reason":null}]}', ""),
        (b'{"stop_reason":"tool_use","content":[]}', "tool_calls"),
        (b'{"stop_reason":"refusal"}', "content_filter"),
        (b'{"status":"incomplete","incomplete_details":{"reason":"content_filter"}}', "content_filter"),
        (b'{"status":"failed"}', ""),
        (b'{"data":[],"object":"list"}', ""),
        (b"[", ""),
        (b'{"choices":7}', ""),
    ],
)
def test_why_an_answer_ended(document: bytes, finish: str) -> None:
    assert read_end(document) == (None, finish)
    assert read_finish(document) == finish


@pytest.mark.parametrize("document", [
    b'{"choices":7,"usage":{"prompt_tokens":3}}', b'{"choices":[{"finish_reason":5}],"usage":{"prompt_tokens":3}}',
])  # fmt: skip
def test_usage_counts_whatever_else_an_answer_says(document: bytes) -> None:
    usage, finish = read_end(document)
    assert (usage and usage.tokens_in, finish) == (3, "")


@pytest.mark.parametrize(
    "usage", [b'{"prompt_tokens":null,"completion_tokens":4}', b'{"prompt_tokens":-1}', b'{"prompt_tokens":1.5}', b"[]"]
)
def test_why_an_answer_ended_counts_whatever_its_usage_says(usage: bytes) -> None:
    answer = b'{"choices":[{"finish_reason":"length"}],"usage":%b}' % usage
    assert read_end(answer) == (None, "length")
    events = EventStream(ENDPOINTS["/v1/messages"], hides_usage=False, notes_finish=True)
    events.feed(b'event: message_delta\ndata: {"delta":{"stop_reason":"max_tokens"},"usage":%b}\n\n' % usage)
    assert events.finish == "length"


def test_the_last_usage_of_a_whole_stream_counts() -> None:
    stream = b'data: {"usage": null}\n\ndata: {"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    stream += b'data: {"usage":{"prompt_tokens":3,"completion_tokens":9}}\n\ndata: [DONE]\n\n'
    usage = read_stream_usage(stream)
    assert usage is not None
    assert (usage.tokens_in, usage.tokens_out) == (3, 9)
    assert read_stream_usage(b"data: [DONE]\n\n") is None
    assert list(read_events(b"event: x\ndata: 1\n\n: silence\n\ndata: 2\r\n\r\n")) == [b" 1", b" 2"]


FAILURES = {
    "/v1/chat/completions": [b'data: {"error": {"message": "no"}}\n\n', b"data: [DONE]\n\n"],
    "/v1/completions": [b'data: {"error":{"message":"no"}}\n\ndata: [DONE]\n\n'],
    "/v1/responses": [b'event: response.failed\ndata: {"type":"response.failed"}\n\n'],
    "/v1/messages": [b'event: error\ndata: {"type":"error","error":{"type":"api_error"}}\n\n'],
}


@pytest.mark.parametrize(("path", "pieces"), FAILURES.items())
def test_a_stream_may_say_that_it_failed_and_end_in_order(path: str, pieces: list[bytes]) -> None:
    events = EventStream(ENDPOINTS[path], hides_usage=False)
    for piece in pieces:
        assert events.feed(piece) == piece
        assert any(stop in piece for stop in events.stops), "it takes no shortcut"
    assert (events.has_ended, events.has_failed) == (True, True)


def test_words_about_errors_are_no_failure() -> None:
    events = EventStream(CHAT, hides_usage=False)
    events.feed(b'data: {"id":"1","choices":[{"delta":{"content":"{\\"error\\": 1}"}}]}\n\ndata: [DONE]\n\n')
    assert (events.has_ended, events.has_failed) == (True, False)


def test_the_first_of_several_choices_says_why_it_ended() -> None:
    events = EventStream(CHAT, hides_usage=False, notes_finish=True)
    for index, reason in ((1, "stop"), (0, "length"), (2, "stop")):
        events.feed(b'data: {"choices":[{"index":%d,"finish_reason": "%b"}]}\n\n' % (index, reason.encode()))
    assert events.finish == "length"
    assert any(stop in b'"finish_reason": "length"' for stop in events.stops), "written with a space too"
