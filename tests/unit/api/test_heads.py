import hashlib
from collections.abc import Sequence

import pytest

from gateway.api.auth import KeyRing
from gateway.api.heads import HeadReader, find_endpoint, too_large
from gateway.errors import BadRequest, BodyTooLarge, HeadersTooLarge, MethodNotAllowed, Unauthorized, UnsupportedMedia
from gateway.proxy.call import RequestHead
from gateway.proxy.endpoints import ENDPOINTS
from gateway.traffic.routes import Caller

CHAT = "/v1/chat/completions"
LIMIT = 1000
KEYS = KeyRing({hashlib.sha256(b"key").hexdigest(): Caller("team-a")})
JSON = (b"content-type", b"application/json")


def check(*headers: tuple[bytes, bytes], method: bytes = b"POST", keys: KeyRing | None = None) -> RequestHead:
    reader = HeadReader(keys, LIMIT)
    return reader.read(ENDPOINTS[CHAT], method, list(headers), b"", is_chunked=True, is_lasting=True)


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "target", ["{}", "{}?", "{}?a=1&b=/x?y", "http://host{}", "HTTP://host:80{}?a=1", "http://[::1]:8000{}"]
)
def test_a_relayed_route_is_found_in_every_form_of_a_target(target: str, path: str) -> None:
    assert find_endpoint(target.format(path).encode()) is ENDPOINTS[path]


@pytest.mark.parametrize(
    "url",
    [
        b"", b"*", b"?", b"/", b"/v1/models", b"/v1/none", b"/v1/chat", b"/v1/chat/completions/", b"//v1/chat/completions",
        b"/V1/chat/completions", b"/v1/./chat/completions", b"/v1/chat/../chat/completions", b"v1/chat/completions",
        b"/v1/chat%2Fcompletions", b"/v1/chat/completion%73", b"/v1/chat/completions%3Fa=1", b"/%", b"/x?/v1/chat/completions",
        b"host:443", b"http://", b"http://host", b"http://host/v1/none", b"http://host?/v1/chat/completions",
        b"http://host/v1/chat/completion%73", b"/v1/chat/completions\xff", b"\xff",
    ],
)  # fmt: skip
def test_any_other_target_is_none(url: bytes) -> None:
    assert find_endpoint(url) is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [JSON],
        [(b"content-type", b"application/json; charset=utf-8")],
        [(b"content-type", b"Application/JSON")],
        [(b"content-type", b" application/json ;x")],
        [(b"content-encoding", b"identity")],
        [(b"content-encoding", b" Identity ")],
        [(b"content-length", b"1000")],
        [(b"x", b"1")] * 200,
        [JSON, (b"content-type", b"text/plain")],  # of a header sent twice the first counts
    ],
)
def test_a_sound_head_is_taken(headers: Sequence[tuple[bytes, bytes]]) -> None:
    assert check(*headers).caller is None


@pytest.mark.parametrize(
    ("headers", "kind", "sentence"),
    [
        ([(b"x", b"1")] * 201, HeadersTooLarge, "more than 200 headers"),
        ([(b"content-type", b"text/plain")], UnsupportedMedia, "'text/plain' is not supported"),
        ([(b"content-type", b"application/x-www-form-urlencoded")], UnsupportedMedia, "application/json"),
        ([(b"content-type", b"application/jsonl")], UnsupportedMedia, "application/json"),
        ([(b"content-type", b"")], UnsupportedMedia, "application/json"),
        ([(b"content-type", b"\xff")], UnsupportedMedia, "application/json"),
        ([(b"content-encoding", b"gzip")], UnsupportedMedia, "Compressed"),
        ([JSON, (b"content-encoding", b"identity, br")], UnsupportedMedia, "Compressed"),
        ([(b"content-length", b"1001")], BodyTooLarge, "max_body_bytes"),
    ],
)
def test_what_a_head_shows_to_be_wrong_is_refused(
    headers: Sequence[tuple[bytes, bytes]], kind: type[BadRequest], sentence: str
) -> None:
    with pytest.raises(kind) as caught:
        check(*headers)
    assert type(caught.value) is kind
    assert sentence in caught.value.message


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"OPTIONS", b"HEAD"])
def test_no_method_but_post_is_taken(method: bytes) -> None:
    with pytest.raises(MethodNotAllowed, match=f"/v1/chat/completions takes POST, not {method.decode()}"):
        check(method=method)


def test_a_long_content_type_is_shown_in_part() -> None:
    with pytest.raises(UnsupportedMedia) as caught:
        check((b"content-type", b"y" * 5000))
    assert caught.value.message.count("y" * 100) == 1
    assert len(caught.value.message) < 250


def test_a_known_key_names_the_caller() -> None:
    head = check((b"x-api-key", b"key"), keys=KEYS)
    assert (head.caller, head.may_pin) == ("team-a", True)
    bound = KeyRing({hashlib.sha256(b"key").hexdigest(): Caller("team-a", may_pin=False)})
    assert not check((b"x-api-key", b"key"), keys=bound).may_pin


def test_heads_that_were_read_are_forgotten_when_keys_change() -> None:
    keys = KeyRing({hashlib.sha256(b"key").hexdigest(): Caller("team-a")})
    reader = HeadReader(keys, LIMIT)
    headers = [(b"x-api-key", b"key"), (b"content-length", b"2")]
    data = b"POST /v1/chat/completions HTTP/1.1\r\nx-api-key: key\r\ncontent-length: 2\r\n\r\n{}"
    reader.read(ENDPOINTS[CHAT], b"POST", headers, data, is_chunked=True, is_lasting=True)
    assert reader.recall(data) is not None
    reader.forget()
    assert reader.recall(data) is None


@pytest.mark.parametrize("headers", [[], [(b"x-api-key", b"no")], [(b"content-type", b"text/plain")]])
def test_without_a_known_key_nothing_else_is_told(headers: Sequence[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Unauthorized):
        check(*headers, keys=KEYS)


@pytest.mark.parametrize(("limit", "shown"), [(2**20, "1 MiB"), (100 * 2**20, "100 MiB"), (2**19, "0.5 MiB")])
def test_the_limit_is_told_in_mebibytes(limit: int, shown: str) -> None:
    assert f"larger than {shown}:" in too_large(limit).message


def test_a_long_head_is_refused() -> None:
    with pytest.raises(HeadersTooLarge, match="64 KiB"):
        check((b"x-long", b"a" * 70_000))


def test_of_a_header_sent_twice_the_first_counts() -> None:
    assert check((b"x", b"1"), (b"x", b"2")).by_name[b"x"] == b"1"


def test_what_differs_from_request_to_request_is_not_in_the_head() -> None:
    traced = ((b"traceparent", b"00-1"), (b"tracestate", b"a=1"))
    head = check((b"x", b"1"), (b"content-length", b"12"), (b"x-request-id", b"mine"), *traced, (b"accept", b"*/*"))
    assert head.by_name == {b"x": b"1", b"accept": b"*/*"}
    assert head.engine_lines == b"accept: */*\r\ncontent-type: application/json\r\n"
