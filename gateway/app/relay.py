"""Main module of a relay's process: answers the public port by the snapshots it is sent, and reports what it did.

`python -m gateway.app.relay CHANNEL LEVEL SOCKET...`, see `running.run_child`.
"""

import asyncio
import socket
import time
from typing import Any

from gateway.app.orders import Orders
from gateway.app.public_port import PublicPort, Seams, settle_memory
from gateway.app.running import run_child
from gateway.errors import StateUnavailable
from gateway.processes.channel import Channel
from gateway.processes.joining import join
from gateway.processes.messages import (
    AnyMessage,
    Ask,
    Demand,
    FeedbackGiven,
    GiveFeedback,
    Hurry,
    NewRoutes,
    Observations,
    Report,
    Up,
)
from gateway.processes.questions import Questions
from gateway.settings import Settings
from gateway.tasks import TaskSet
from gateway.traffic.routes import RouteBoard

REPORT_EVERY_S = 1.0
_FEEDBACK_TIMEOUT_S = 6.0


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
        self._channel: Channel | None = None
        self._feedback = Questions[FeedbackGiven](_FEEDBACK_TIMEOUT_S)

    async def run(self, channel_fd: int, sockets: list[socket.socket]) -> int:
        """Answer until told to stop or until the main process is gone; returns the exit code."""
        channel, welcome = await join(channel_fd, self._take, self._lose_parent)
        settings = Settings.model_validate_json(welcome.settings)
        if welcome.routes.models and not self._routed.is_set():  # else newer ones have come already
            self._board.publish(welcome.routes)
            self._routed.set()
        self._channel = channel
        seams = Seams(
            lambda model, version: channel.send(Demand(model, version)),
            lambda observed: channel.send(Observations(observed)),
            self._give_feedback,
        )
        public = PublicPort.build(settings, self._board, welcome.counts, seams)
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

    async def _give_feedback(self, request_id: str, metric: str, value: float, caller: str) -> dict[str, Any]:
        """Ask control, which has the state. Raises what it says, StateUnavailable if it says nothing."""
        if self._channel is None:
            raise StateUnavailable("This relay is still starting: try again.", retry_after_s=1)
        try:
            given = await self._feedback.ask(
                self._channel.send, lambda number: GiveFeedback(number, request_id, metric, value, caller)
            )
        except TimeoutError as error:
            message = "Feedback cannot be kept now: send it again."
            raise StateUnavailable(message, retry_after_s=5) from error
        if given.fault is not None:
            raise given.fault.revive()
        return given.told

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
        elif isinstance(message, FeedbackGiven):
            self._feedback.take(message.number, message)
        elif isinstance(message, Hurry):
            self._orders.hurry.set()

    def _lose_parent(self) -> None:
        """The main process is gone, and with it every engine it kept: there is nothing left to do."""
        self._has_parent = False
        self._feedback.give_up()
        self._routed.set()
        self._orders.take()


if __name__ == "__main__":
    run_child(lambda channel_fd, sockets: Relay().run(channel_fd, sockets))
