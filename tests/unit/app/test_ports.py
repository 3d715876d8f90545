import socket

import pytest

from gateway.app.ports import bind_or_say, bind_shared, show_url


def close(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


def test_all_sockets_have_the_same_port_and_each_takes_connections() -> None:
    sockets = bind_shared("127.0.0.1", 0, 3)
    assert len({one.getsockname() for one in sockets}) == 1
    for one in sockets:
        one.setblocking(False)
    clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(60)]
    taken = []
    for one in sockets:
        count = 0
        try:
            while True:
                one.accept()[0].close()
                count += 1
        except BlockingIOError:
            taken.append(count)
    assert sum(taken) == 60
    assert all(count > 0 for count in taken)
    close(clients + sockets)


def test_a_port_that_another_gateway_shares_with_itself_is_not_joined() -> None:
    for count in (1, 2):
        first = bind_shared("127.0.0.1", 0, count)
        with pytest.raises(OSError, match="in use"):
            bind_shared("127.0.0.1", first[0].getsockname()[1], 2)
        close(first)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_cannot_be_had_is_told_with_its_reason(host: str, caplog: pytest.LogCaptureFixture) -> None:
    assert bind_or_say(host, 0, 2) == []
    [message] = caplog.messages
    assert message.startswith(f"nothing can listen on {host}:0: [Errno ")


def test_a_name_is_looked_up() -> None:
    sockets = bind_shared("localhost", 0, 1)
    assert sockets[0].getsockname()[0] in ("127.0.0.1", "::1")
    close(sockets)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (("127.0.0.1", 80), "http://127.0.0.1:80"),
        (("0.0.0.0", 8000), "http://127.0.0.1:8000"),
        (("::", 8000, 0, 0), "http://[::1]:8000"),
        (("fe80::1", 8000, 0, 0), "http://[fe80::1]:8000"),
    ],
)
def test_the_address_shown_can_be_asked(address: tuple[object, ...], url: str) -> None:
    assert show_url(address) == url
