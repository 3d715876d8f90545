"""A child of the main process that does what its argument says; run by its bare name from this folder."""

import asyncio
import os
import signal
import sys

from gateway.processes.joining import join
from gateway.processes.messages import Alive, AnyMessage, Up, Welcome


async def live(channel_fd: int, behaviour: str) -> int:
    ended = asyncio.Event()
    received: list[AnyMessage] = []
    loop = asyncio.get_running_loop()
    if behaviour != "stubborn":
        loop.add_signal_handler(signal.SIGTERM, ended.set)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "broken":
        return 3
    channel, welcome = await join(channel_fd, received.append, ended.set)
    if behaviour == "mute":
        await ended.wait()
        return 0
    # Back to the test: what it was welcomed with, and what it is.
    channel.send(Welcome(f"{welcome.settings.decode()} {os.getpid()}".encode()))
    channel.send(Up())
    while not ended.is_set():
        channel.send(received.pop() if received else Alive())
        if behaviour == "mortal":
            await asyncio.sleep(0.05)
            return 4
        await asyncio.sleep(0.01 if behaviour != "silent" else 3600)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(live(int(sys.argv[1]), sys.argv[2])))
