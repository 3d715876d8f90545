import errno
import itertools
import socket

import pytest

from gateway.app.ports import bind, show_url


def close(shares: list[list[socket.socket]]) -> None:
    for one in itertools.chain(*shares):
        one.close()


def test_all_shares_have_the_same_port_and_each_takes_connections() -> None:
    shares = bind("127.0.0.1", 0, 3)
    listeners = [one for (one,) in shares]
    assert len({one.getsockname() for one in listeners}) == 1
    for one in listeners:
        one.setblocking(False)
    clients = [socket.create_connection(listeners[0].getsockname()) for _ in range(60)]
    taken = []
    for one in listeners:
        count = 0
        try:
            while True:
                one.accept()[0].close()
                count += 1
        except BlockingIOError:
            taken.append(count)
    assert sum(taken) == 60
    assert all(count > 0 for count in taken)
    close([clients, listeners])


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("second", [1, 2])
def test_a_port_that_another_gateway_has_is_not_joined(
    first: int, second: int, caplog: pytest.LogCaptureFixture
) -> None:
    shares = bind("127.0.0.1", 0, first)
    port = shares[0][0].getsockname()[1]
    assert bind("127.0.0.1", port, second) == []
    assert caplog.messages == [
        f"nothing can listen on 127.0.0.1:{port}: [Errno {errno.EADDRINUSE}] Address already in use"
    ]
    close(shares)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_cannot_be_had_is_told_with_its_reason(host: str, caplog: pytest.LogCaptureFixture) -> None:
    assert bind(host, 0, 2) == []
    [message] = caplog.messages
    assert message.startswith(f"nothing can listen on {host}:0: [Errno ")


@pytest.mark.parametrize("shares", [1, 2])
def test_every_address_of_a_name_is_listened_on(shares: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr("gateway.app.ports.socket.getaddrinfo", lambda *_, **__: found)
    made = bind("two.example", 0, shares)
    assert [[one.getsockname()[0] for one in share] for share in made] == [["127.0.0.1", "127.0.0.2"]] * shares
    assert len({one.getsockname()[1] for one in itertools.chain(*made)}) == 1
    close(made)


@pytest.mark.parametrize(
    ("family", "host", "url"),
    [
        (socket.AF_INET, "127.0.0.1", "http://127.0.0.1:{}"),
        (socket.AF_INET, "0.0.0.0", "http://127.0.0.1:{}"),
        (socket.AF_INET6, "::", "http://[::1]:{}"),
        (socket.AF_INET6, "::1", "http://[::1]:{}"),
    ],
)
def test_the_address_shown_can_be_asked(family: int, host: str, url: str) -> None:
    with socket.socket(family) as one:
        one.bind((host, 0))
        assert show_url(one) == url.format(one.getsockname()[1])
