import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gateway.processes.channel import Channel
from gateway.processes.messages import Alive, AnyMessage, Ask, Up, Welcome
from tests.support.fake_engines import until


class End:
    """One end, with all it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    async def open(self, sock: socket.socket) -> "End":
        self.channel = await Channel.open(sock, self.told.append, lambda: self.told.append("end"))
        return self


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    one, other = socket.socketpair()
    ends = await End().open(one), await End().open(other)
    yield ends
    for end in ends:
        end.channel.close()
    await until(lambda: all("end" in end.told for end in ends))


async def test_messages_arrive_whole_and_in_order_both_ways(ends: tuple[End, End]) -> None:
    one, other = ends
    sent: list[AnyMessage] = [Ask(number) for number in range(100)] + [Up(), Alive()]
    for message in sent:
        one.channel.send(message)
        other.channel.send(message)
    await until(lambda: len(one.told) == len(other.told) == len(sent))
    assert one.told == other.told == sent


async def test_a_message_larger_than_any_socket_buffer_arrives(ends: tuple[End, End]) -> None:
    one, other = ends
    one.channel.send(Welcome(b"x" * 5_000_000))
    await until(lambda: bool(other.told))
    assert len(other.told[0].settings) == 5_000_000


@pytest.mark.parametrize("size", [1, 2, 3, 5])
async def test_messages_cut_anywhere_are_put_together(size: int) -> None:
    told: list[AnyMessage] = []
    channel = Channel(told.append, lambda: None)
    data = b""
    for message in (Ask(7), Up()):
        frame = msgspec.msgpack.encode(message)
        data += len(frame).to_bytes(4, "big") + frame
    for start in range(0, len(data), size):
        channel.data_received(data[start : start + size])
    assert told == [Ask(7), Up()]


async def test_what_is_not_understood_is_logged_and_the_next_message_counts(caplog: pytest.LogCaptureFixture) -> None:
    told: list[AnyMessage] = []
    channel = Channel(told.append, lambda: None)
    good = msgspec.msgpack.encode(Ask(7))
    with caplog.at_level(logging.ERROR):
        channel.data_received(b"\0\0\0\3abc" + len(good).to_bytes(4, "big") + good)
    assert told == [Ask(7)]
    assert "was not understood" in caplog.text


async def test_the_end_is_told_once_and_sending_to_nobody_is_harmless() -> None:
    one, other = socket.socketpair()
    end = await End().open(one)
    other.close()
    await until(lambda: end.told == ["end"])
    end.channel.send(Alive())
    end.channel.close()
    await asyncio.sleep(0)
    assert end.told == ["end"]
