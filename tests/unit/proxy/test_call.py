from gateway.proxy.call import Call
from gateway.proxy.endpoints import ENDPOINTS
from gateway.telemetry.requests import RequestRecord

CHAT = "/v1/chat/completions"


def call(*headers: tuple[bytes, bytes]) -> Call:
    return Call(ENDPOINTS[CHAT], list(headers), b"", "1.2.3.4", RequestRecord("id", CHAT, 0.0), dict(reversed(headers)))


def test_of_a_header_sent_twice_the_first_counts() -> None:
    assert call((b"x", b"1"), (b"x", b"2")).header(b"x") == "1"
    assert call().header(b"x") is None


def test_a_header_that_is_no_ascii_is_still_text() -> None:
    assert call((b"x", b"\xe4")).header(b"x") == "ä"
