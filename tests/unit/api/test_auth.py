import hashlib

import pytest

from gateway.api.auth import KeyRing
from gateway.errors import Unauthorized
from gateway.traffic.routes import Caller


def ring(**keys: str) -> KeyRing:
    return KeyRing({hashlib.sha256(key.encode()).hexdigest(): Caller(name) for key, name in keys.items()})


RING = ring(**{"key-a": "team-a", "key-b": "team-b"})


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({b"authorization": b"Bearer key-a"}, "team-a"),
        ({b"authorization": b"bearer key-b"}, "team-b"),
        ({b"authorization": b"BEARER   key-b "}, "team-b"),
        ({b"x-api-key": b"key-a"}, "team-a"),
        ({b"x-api-key": b" key-a "}, "team-a"),
        ({b"authorization": b"Bearer key-a", b"x-api-key": b"key-b"}, "team-a"),
        ({b"authorization": b"Basic dXNlcjpwYXNz", b"x-api-key": b"key-b"}, "team-b"),
    ],
)
def test_a_known_key_gives_its_name(headers: dict[bytes, bytes], name: str) -> None:
    assert RING.check(headers) == Caller(name)


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({}, "shows no API key"),
        ({b"authorization": b""}, "shows no API key"),
        ({b"authorization": b"Bearer"}, "shows no API key"),
        ({b"authorization": b"Bearer  "}, "shows no API key"),
        ({b"authorization": b"Basic key-a"}, "shows no API key"),
        ({b"authorization": b"key-a"}, "shows no API key"),
        ({b"x-api-key": b""}, "shows no API key"),
        ({b"authorization": b"Bearer key-c"}, "not known"),
        ({b"authorization": b"Bearer key-A"}, "not known"),
        ({b"authorization": b"Bearer key-a key-b"}, "not known"),
        ({b"authorization": b"Bearer " + hashlib.sha256(b"key-a").hexdigest().encode()}, "not known"),
        ({b"authorization": b"Bearer \xff\xfe"}, "not known"),
        ({b"authorization": b"Bearer wrong", b"x-api-key": b"key-a"}, "not known"),
    ],
)
def test_anything_else_is_refused_with_what_to_do(headers: dict[bytes, bytes], sentence: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        RING.check(headers)
    assert sentence in caught.value.message
    assert "authorization: Bearer KEY" in caught.value.message
    assert (caught.value.status, caught.value.type, caught.value.code) == (
        401,
        "authentication_error",
        "invalid_api_key",
    )


def test_the_key_itself_is_not_repeated() -> None:
    with pytest.raises(Unauthorized) as caught:
        RING.check({b"authorization": b"Bearer almost-secret"})
    assert "almost-secret" not in caught.value.message


def test_other_keys_are_let_in_from_when_they_are_known() -> None:
    changing = ring(key="team")
    other = {hashlib.sha256(b"other").hexdigest(): Caller("team", may_pin=False)}
    assert changing.replace(other)
    assert not changing.replace(dict(other))
    assert changing.check({b"x-api-key": b"other"}) == Caller("team", may_pin=False)
    with pytest.raises(Unauthorized):
        changing.check({b"x-api-key": b"key"})


def test_a_ring_keeps_its_keys_when_the_table_it_was_made_of_changes() -> None:
    table = {hashlib.sha256(b"key").hexdigest(): Caller("team")}
    made = KeyRing(table)
    table.clear()
    assert made.check({b"x-api-key": b"key"}) == Caller("team")


def test_no_keys_let_nobody_in() -> None:
    with pytest.raises(Unauthorized):
        KeyRing({}).check({b"x-api-key": b"key"})
