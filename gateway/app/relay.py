"""Main module of a relay's process: answers the public port by the snapshots it is sent, and reports what it did.

`python -m gateway.app.relay CHANNEL LEVEL SOCKET...`, see `running.run_child`.
"""

import asyncio
import socket
import time

from gateway.app.orders import Orders
from gateway.app.public_port import PublicPort, settle_memory
from gateway.app.running import run_child
from gateway.processes.channel import Channel
from gateway.processes.joining import join
from gateway.processes.messages import AnyMessage, Ask, Demand, Hurry, NewRoutes, Report, Up
from gateway.settings import Settings
from gateway.tasks import TaskSet
from gateway.traffic.routes import RouteBoard

REPORT_EVERY_S = 1.0


class Relay:
    """One relay from its welcome to its end."""

    def __init__(self) -> None:
        self._orders = Orders(has_parent=True)
        self._routed = asyncio.Event()
        self._board = RouteBoard()
        self._routes_delay_s = 0.0
        self._has_parent = True
        self._asked = asyncio.Event()
        self._ask_number = 0

    async def run(self, channel_fd: int, sockets: list[socket.socket]) -> int:
        """Answer until told to stop or until the main process is gone; returns the exit code."""
        channel, welcome = await join(channel_fd, self._take, self._lose_parent)
        settings = Settings.model_validate_json(welcome.settings)
        if welcome.routes.models and not self._routed.is_set():  # else newer ones have come already
            self._board.publish(welcome.routes)
            self._routed.set()
        public = PublicPort.build(
            settings, self._board, welcome.counts, lambda model, version: channel.send(Demand(model, version))
        )
        if public is None:
            return 1
        await self._routed.wait()  # without routes a client would hear that its model does not exist
        tasks = TaskSet()
        await public.serve_on(sockets, tasks)
        settle_memory()
        channel.send(Up())
        reporting = tasks.start(self._report_on(channel, public), "report")
        await self._orders.stop.wait()
        await public.drain(settings.server.drain_grace_s if self._has_parent else 0.0, self._orders.hurry)
        await public.close()
        reporting.cancel()
        channel.send(self._report(public))
        channel.close()
        await tasks.close()
        return 0

    async def _report_on(self, channel: Channel, public: PublicPort) -> None:
        while True:
            try:
                async with asyncio.timeout(REPORT_EVERY_S):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            channel.send(self._report(public))

    def _report(self, public: PublicPort) -> Report:
        number, self._ask_number = self._ask_number, 0
        return Report(public.read_counts(), dict(public.forwarder.running), self._routes_delay_s, number)

    def _take(self, message: AnyMessage) -> None:
        if isinstance(message, NewRoutes):
            self._board.publish(message.routes)
            self._routed.set()
            self._routes_delay_s = time.monotonic() - message.published_s
        elif isinstance(message, Ask):
            self._ask_number = message.number
            self._asked.set()
        elif isinstance(message, Hurry):
            self._orders.hurry.set()

    def _lose_parent(self) -> None:
        """The main process is gone, and with it every engine it kept: there is nothing left to do."""
        self._has_parent = False
        self._routed.set()
        self._orders.take()


if __name__ == "__main__":
    run_child(lambda channel_fd, sockets: Relay().run(channel_fd, sockets))
