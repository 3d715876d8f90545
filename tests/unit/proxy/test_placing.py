import json
from typing import Any

import pytest

from gateway.errors import BadRequest, Forbidden, UnknownModel
from gateway.proxy.body import parse_fields
from gateway.proxy.call import RequestHead
from gateway.proxy.endpoints import ENDPOINTS
from gateway.proxy.placing import Placing, place
from gateway.traffic.allocation import Allocation
from gateway.traffic.routes import How, ModelRoute, Routes, VersionRoute
from gateway.traffic.split import Split

VERSIONS = {"v1": VersionRoute("v1"), "v2": VersionRoute("v2")}
SESSION = (b"x-session-id", b"7")
CHAT = {"messages": [{"role": "user", "content": "What is this?"}]}


def routes(*sticky_by: str, models: tuple[str, ...] = ("m",)) -> Routes:
    split = Split.over("m", Allocation.divide({"v1": 0.5, "v2": 0.5}))
    return Routes({name: ModelRoute(name, VERSIONS, split, sticky_by) for name in models})


def find(
    known: Routes, body: dict[str, Any], *headers: tuple[bytes, bytes], caller: str | None = None, may_pin: bool = True
) -> Placing:
    head = RequestHead(ENDPOINTS["/v1/chat/completions"], dict(headers), b"", caller=caller, may_pin=may_pin)
    return place(head, parse_fields(json.dumps(body).encode()), known, "9.9.9.9", "id1")


@pytest.mark.parametrize(
    ("sticky_by", "source", "key"),
    [
        (("user",), "user", b"user=anna"),
        (("header:x-session-id", "user"), "header:x-session-id", b"header:x-session-id=7"),
        (("header:x-other", "user"), "user", b"user=anna"),
        (("client_ip",), "client_ip", b"client_ip=9.9.9.9"),
        (("api_key",), "api_key", b"api_key=team-a"),
        ((), "x-request-id", b"id1"),
        (("header:x-other",), "x-request-id", b"id1"),
    ],
)
def test_the_first_source_that_says_something_is_the_sticky_key(
    sticky_by: tuple[str, ...], source: str, key: bytes
) -> None:
    found = find(routes(*sticky_by), {"user": "anna"}, SESSION, caller="team-a")
    assert (found.source, found.sticky_key) == (source, key)


@pytest.mark.parametrize("sticky_by", [("header:x-other",), ("header:x-other", "conversation")])
def test_a_chat_without_an_id_stays_together(sticky_by: tuple[str, ...]) -> None:
    first = find(routes(*sticky_by), CHAT)
    answer = [{"role": "assistant", "content": "A circle."}, {"role": "user", "content": "Sure?"}]
    later = find(routes(*sticky_by), {"messages": CHAT["messages"] + answer})
    other = find(routes(*sticky_by), {"messages": [{"role": "user", "content": "Hello"}]})
    assert first == later
    assert first.source == "conversation"
    assert first.sticky_key != other.sticky_key


def test_a_conversation_may_count_more_than_its_address() -> None:
    assert find(routes("conversation", "client_ip"), CHAT).source == "conversation"
    assert find(routes("client_ip", "conversation"), CHAT).source == "client_ip"


def test_pins_and_names_are_seen() -> None:
    known = routes("user")
    assert find(known, {"model": "m"}, (b"x-gateway-version", b"v2")).target.how is How.PIN
    assert find(known, {"model": "m:v2"}).target.how is How.NAME
    assert find(known, {"user": "anna"}).target.how is How.SPLIT


def test_a_model_must_be_named_where_there_are_several() -> None:
    with pytest.raises(BadRequest, match="name one of m, n"):
        find(routes("user", models=("m", "n")), {})
    with pytest.raises(BadRequest, match=r"name one of \(none\)"):
        find(Routes(), {})
    with pytest.raises(UnknownModel):
        find(routes("user"), {"model": "x"})


def test_a_key_may_be_kept_from_choosing_a_version() -> None:
    known = routes("user")
    assert find(known, {"user": "anna"}, caller="team-a", may_pin=False).target.how is How.SPLIT
    for body, headers in (({"model": "m:v2"}, ()), ({"model": "m"}, ((b"x-gateway-version", b"v2"),))):
        with pytest.raises(Forbidden, match="The API key team-a may not choose a version: ask for m alone") as caught:
            find(known, body, *headers, caller="team-a", may_pin=False)
        assert (caught.value.status, caught.value.code) == (403, "not_allowed")
    with pytest.raises(UnknownModel):
        find(known, {"model": "m:v9"}, may_pin=False)
