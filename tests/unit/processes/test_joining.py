import asyncio
import socket

import pytest

from gateway.processes.channel import Channel
from gateway.processes.joining import join
from gateway.processes.messages import AnyMessage, Ask, Welcome
from tests.support.fake_engines import until


async def test_the_welcome_comes_back_and_the_rest_is_handed_on() -> None:
    ours, theirs = socket.socketpair()
    main = await Channel.open(ours, lambda message: None, lambda: None)
    told: list[AnyMessage | str] = []
    main.send(Welcome(b"settings"))
    main.send(Ask(1))
    channel, welcome = await join(theirs.detach(), told.append, lambda: told.append("end"))
    assert welcome.settings == b"settings"
    main.send(Ask(2))
    await until(lambda: told == [Ask(1), Ask(2)])
    main.close()
    await until(lambda: told == [Ask(1), Ask(2), "end"])
    channel.close()


async def test_a_main_process_that_is_gone_before_the_welcome_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with pytest.raises(ConnectionError, match="the main process is gone"):
        async with asyncio.timeout(5):
            await join(theirs.detach(), lambda message: None, lambda: None)
