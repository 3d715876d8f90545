import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Headers
from gateway.proxy import head_memo as module
from gateway.proxy.head_memo import HeadMemo

VARYING = (b"x-request-id", b"traceparent", b"tracestate")
LINES = b"POST /v1/x HTTP/1.1\r\nhost: a\r\n"


class Parsed:
    """What the parser sees in the first message of `data`."""

    def __init__(self, data: bytes) -> None:
        self.headers: Headers = []
        self.target = self.body = b""
        self.is_whole = self.has_more = False
        self._has_head = False
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_whole = False
        self.is_lasting = self.is_whole and self._parser.should_keep_alive()

    def on_message_begin(self) -> None:
        self.has_more = self.is_whole

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        if not self.is_whole:
            self.body += body

    def on_message_complete(self) -> None:
        self.is_whole = True

    def constant(self) -> Headers:
        return [header for header in self.headers if header[0] not in (b"content-length", *VARYING)]

    def varying(self) -> list[list[bytes]]:
        """The values of each varying header."""
        return [[value for name, value in self.headers if name == varying] for varying in VARYING]


def memo_of(data: bytes) -> HeadMemo[str]:
    memo = HeadMemo[str](*VARYING)
    memo.remember(data, Parsed(data).headers, "known")
    return memo


def message(*lines: bytes, body: bytes = b"body", first: bytes = LINES) -> bytes:
    return first + b"".join(line + b"\r\n" for line in lines) + b"content-length: %d\r\n\r\n" % len(body) + body


def test_a_head_that_was_read_is_known_whatever_its_length_and_varying_headers() -> None:
    memo = memo_of(message(b"x-a: 1", b"x-request-id: one"))
    again = message(b"x-a: 1", b"x-request-id: two", body=b"longer body")
    assert memo.recall(again) == ("known", [b"two", None, None], b"longer body")
    assert memo.recall(message(b"x-a: 1")) == ("known", [None, None, None], b"body")
    traced = message(b"traceparent: 00-1", b"x-a: 1", b"x-request-id: three")
    assert memo.recall(traced) == ("known", [b"three", b"00-1", None], b"body")
    assert memo.recall(message(b"traceparent: 00-2", b"x-a: 1")) == ("known", [None, b"00-2", None], b"body")


def test_names_may_be_in_any_case_and_what_varies_in_any_place() -> None:
    memo = memo_of(message(b"x-a: 1"))
    assert memo.recall(LINES + b"Content-Length: 1\r\nX-Request-ID: I\r\nx-a: 1\r\n\r\nb") == (
        "known",
        [b"I", None, None],
        b"b",
    )
    assert memo.recall(LINES + b"X-REQUEST-id: I\r\nx-a: 1\r\nCONTENT-LENGTH: 0\r\n\r\n") == (
        "known",
        [b"I", None, None],
        b"",
    )


@pytest.mark.parametrize(
    "other",
    [
        message(b"x-a: 2"),
        message(b"X-a: 1"),
        message(b"x-a:  1"),
        message(b"x-a: 1 "),
        message(),
        message(b"x-a: 1", b"x-b: 1"),
        message(b"x-a: 1", b"transfer-encoding: chunked"),
        message(b"x-a: 1", b"content-length: 4"),
        message(b"x-a: 1", b"x-request-id: "),
        message(b"x-a: 1", b"x-request-id:  1"),
        message(b"x-a: 1", b"x-request-id: 1 "),
        message(b"x-a: 1", b"x-request-id: 1\rcontent-length: 3"),
        message(b"x-a: 1", b"x-request-id: 1\ncontent-length: 3"),
        message(b"x-a: 1", b"x-request-id: \xff"),
        message(b"x-a: 1", b"x-request-id: 1", b"x-request-id: 2"),
        message(b"x-a: 1", b"traceparent: 1", b"traceparent: 2"),
        message(b"x-a: 1", b"traceparent: 1\nx: y"),
        message(b"x-a: 1", first=LINES.replace(b"POST", b"GET")),
        message(b"x-a: 1", first=LINES.replace(b"1.1", b"1.0")),
        message(b"x-a: 1", first=b"\r\n" + LINES),
        message(b"x-a: 1")[:-1],
        message(b"x-a: 1") + b"G",
        message(b"x-a: 1").replace(b": 4", b": +4"),
        message(b"x-a: 1").replace(b": 4", b": 4 "),
        message(b"x-a: 1").replace(b": 4", b": 0x4"),
        message(b"x-a: 1").replace(b": 4", b": 4, 4"),
        message(b"x-a: 1").replace(b": 4", b": "),
        message(b"x-a: 1").replace(b": 4", b": 0000000004"),
        message(b"x-a: 1").replace(b": 4", b":4"),
        LINES + b"x-a: 1\r\n\r\n",
        b"",
        b"\r\n\r\n",
        b"content-length: 4\r\n\r\nbody",
    ],
)
def test_any_other_head_and_any_part_of_a_message_is_unknown(other: bytes) -> None:
    assert memo_of(message(b"x-a: 1")).recall(other) is None


@pytest.mark.parametrize(
    "data",
    [
        message(b"x-long: " + b"a" * 5000),
        message(b"x-request-id: 1", b"x-request-id: 2"),
        message(b"traceparent: 1", b"traceparent: 2"),
        message(b"x-request-id:1"),
        message(b"x-folded: 1", b" 2"),
        LINES + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        LINES + b"content-length:4\r\n\r\nbody",
        b"\r\n" + message(),
        message()[:30],
    ],
)
def test_a_head_with_anything_unusual_is_not_remembered(data: bytes) -> None:
    assert memo_of(data).recall(data) is None


def test_lines_the_parser_has_not_seen_are_not_remembered() -> None:
    memo = HeadMemo[str](*VARYING)
    memo.remember(message(b"x-a: 1"), [(b"host", b"a"), (b"content-length", b"4")], "wrong")
    assert memo.recall(message(b"x-a: 1")) is None


def test_only_so_many_heads_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_HEADS", 10)
    memo = HeadMemo[int](*VARYING)
    for number in range(95):
        data = message(b"x-a: %d" % number)
        memo.remember(data, Parsed(data).headers, number)
        assert memo.recall(data) == (number, [None, None, None], b"body")
        assert memo.recall(message(b"x-a: 0")) == (0, [None, None, None], b"body"), "one in use is kept"
        assert len(memo._recent) + len(memo._older) <= 20
    assert memo.recall(message(b"x-a: 1")) is None


USUAL = st.sampled_from(
    [b"x-a: 1\r\n", b"Accept: */*\r\n", b"connection: close\r\n", b"x-b: x: y\r\n", b"x-content-length: 4\r\n"]
)
ODD = st.sampled_from([
    b"x-request-id: i\r\n", b"X-Request-ID: j \r\n", b"traceparent: t\r\n", b"tracestate: s\r\n", b"x-request-id:k\r\n", b"content-length: 4\r\n", b"Content-Length:4\r\n",
    b"content-length: 4 \r\n", b"content-length: +4\r\n", b"transfer-encoding: chunked\r\n", b"upgrade: h2c\r\n", b"x-a: 1\n",
    b"x-a: 1\r\n folded\r\n", b"x-a: 1\ncontent-length: 4\r\n", b"x-a: 1\rcontent-length: 4\r\n", b"x-a\r\n", b": 1\r\n", b"\r\n",
    b"x-a : 1\r\n", b"x-a: \xff\r\n", b"x-a: \0\r\n", b"expect: 100-continue\r\n",
])  # fmt: skip
FIRST = st.sampled_from(
    [b"POST /v1/x HTTP/1.1\r\n", b"POST /v1/x HTTP/1.0\r\n", b"\r\nPOST / HTTP/1.1\r\n", b"POST / HTTP/1.1\n"]
)
LENGTH = st.sampled_from([b"content-length: 4\r\n"] * 3 + [b"Content-Length: 0\r\n", b"content-length: 12\r\n", b""])
BODY = st.sampled_from(
    [b"body"] * 3 + [b"", b"\r\n\r\n", b"body\r\n\r\nmore", b"\r\n\r\nContent-Length: 0\r\n\r\n", b"0\r\n\r\n"]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Messages with nearly the same head, as one client sends them; some are broken."""
    first, usual = draw(FIRST), draw(st.lists(USUAL, max_size=3))
    messages = []
    for odd in draw(st.lists(st.lists(ODD, max_size=2), min_size=2, max_size=5)):
        lines = [*usual, *odd, draw(LENGTH)]
        if draw(st.booleans()):
            lines = draw(st.permutations(lines))
        messages.append(first + b"".join(lines) + b"\r\n" + draw(BODY))
    return messages


@given(conversations())
def test_what_is_recalled_is_what_the_parser_would_have_read(messages: list[bytes]) -> None:
    memo = HeadMemo[Parsed](*VARYING)
    for data in messages:
        recalled, parsed = memo.recall(data), Parsed(data)
        if recalled is not None:
            head, values, body = recalled
            assert parsed.is_whole
            assert not parsed.has_more
            assert (head.target, head.constant(), head.is_lasting) == (
                parsed.target,
                parsed.constant(),
                parsed.is_lasting,
            )
            assert [[] if value is None else [value] for value in values] == parsed.varying()
            assert body == parsed.body
        if parsed.is_whole:
            memo.remember(data, parsed.headers, parsed)


def test_messages_of_that_kind_are_recalled() -> None:
    found = 0

    @given(conversations())
    def count(messages: list[bytes]) -> None:
        nonlocal found
        memo = HeadMemo[int](*VARYING)
        for data in messages:
            found += memo.recall(data) is not None
            parsed = Parsed(data)
            if parsed.is_whole:
                memo.remember(data, parsed.headers, 1)

    count()
    assert found > 0, "the property above would hold of a memo that never remembers"
