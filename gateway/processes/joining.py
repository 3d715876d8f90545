"""A child's end of its channel: how a process of ours finds out what it is to do."""

import asyncio
import socket
from collections.abc import Callable

from gateway.processes.channel import Channel
from gateway.processes.messages import AnyMessage, Welcome


async def join(
    fd: int, on_message: Callable[[AnyMessage], None], on_end: Callable[[], None]
) -> tuple[Channel, Welcome]:
    """Open the channel on descriptor `fd` and wait for the welcome; what comes behind it goes to `on_message`.

    `on_end` is called when the main process is gone. Raises ConnectionError when it is gone before the welcome.
    """
    welcomed: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()

    def take(message: AnyMessage) -> None:
        if isinstance(message, Welcome):
            welcomed.set_result(message)
        else:
            on_message(message)

    def end() -> None:
        if welcomed.done():
            on_end()
        else:
            welcomed.set_exception(ConnectionError("the main process is gone"))

    channel = await Channel.open(socket.socket(fileno=fd), take, end)
    return channel, await welcomed
