"""Main module of control's process: decides what is served and answers the admin port. Starts and relays nothing.

`python -m gateway.app.control CHANNEL LEVEL SOCKET...`, see `running.run_child`.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

from gateway.api.admin import build_admin_app
from gateway.app.deciding import Deciding, Seams
from gateway.app.orders import Orders
from gateway.app.ports import serve_on
from gateway.app.running import dump_settings, run_child
from gateway.control.serving import Serving
from gateway.engines.drafting import sum_drafts
from gateway.engines.engine import EngineStatus, MountRefused
from gateway.errors import Fault, GatewayError
from gateway.fleet.replica import Replica
from gateway.processes.channel import Channel
from gateway.processes.joining import join
from gateway.processes.messages import (
    AdapterSet,
    Alive,
    AnyMessage,
    Ask,
    Engines,
    FeedbackGiven,
    GiveFeedback,
    Keep,
    KeepSettings,
    NewRoutes,
    Observations,
    Reload,
    Remember,
    Reports,
    SetAdapter,
    Up,
)
from gateway.processes.questions import Questions
from gateway.processes.reports import render_reports
from gateway.settings import Settings
from gateway.sources import Fetcher, open_source
from gateway.state import Snapshot
from gateway.tasks import TaskSet
from gateway.telemetry.drafts import tell_drafts
from gateway.traffic.routes import Routes

_ALIVE_EVERY_S = 1.0
_ASK_TIMEOUT_S = 2.0
_MOUNT_TIMEOUT_S = 120.0


class EnginesElsewhere:
    """The engines as the main process has told of them last. `told` is that message."""

    def __init__(self) -> None:
        self.told = Engines()
        self._send: Callable[[AnyMessage], None] | None = None
        self.mounting = Questions[AdapterSet](_MOUNT_TIMEOUT_S)

    def connect(self, send: Callable[[AnyMessage], None]) -> None:
        """Send what is asked of the engines by this."""
        self._send = send

    def statuses(self) -> list[EngineStatus]:
        return self.told.statuses

    def replicas(self) -> list[Replica]:
        return self.told.replicas

    async def set_adapter(self, model: str, version: str, adapter: str, folder: Path | None) -> None:
        """See `Supervisor.set_adapter`, which does it in the main process."""
        if self._send is None:
            raise MountRefused("the gateway is still starting: try again")
        path = None if folder is None else str(folder)
        try:
            answer = await self.mounting.ask(
                self._send, lambda number: SetAdapter(number, model, version, adapter, path)
            )
        except TimeoutError as error:
            raise MountRefused(f"the engines did not say in {_MOUNT_TIMEOUT_S:g} s what became of it") from error
        if answer.fault is not None:
            raise MountRefused(answer.fault)


class ControlProcess:
    """Control from its welcome to its end."""

    def __init__(self) -> None:
        self._orders = Orders(has_parent=True)
        self._engines = EnginesElsewhere()
        self._deciding: Deciding | None = None
        self._channel: Channel | None = None
        self._tasks = TaskSet()
        self._reports = Questions[Reports](_ASK_TIMEOUT_S)

    async def run(self, channel_fd: int, sockets: list[socket.socket]) -> int:
        """Answer the admin port until told to stop or until the main process is gone; returns the exit code."""
        channel, welcome = await join(channel_fd, self._take, self._orders.take)
        self._channel = channel
        settings = Settings.model_validate_json(welcome.settings)
        if not self._engines.told.statuses:  # else newer ones have come already
            self._engines.told = welcome.engines

        self._engines.connect(channel.send)

        def publish(routes: Routes) -> None:
            channel.send(NewRoutes(routes, time.monotonic()))

        def keep(serving: Serving) -> None:
            channel.send(Keep(serving.dump()))

        def remember(snapshot: Snapshot) -> None:
            channel.send(Remember(snapshot))

        async def read_metrics() -> bytes:
            # The main process answers for relays that do not.
            reports = await self._reports.ask(channel.send, Ask)
            extra = (*tell_drafts(sum_drafts(self._engines.statuses())), *deciding.list_metrics())
            return render_reports(reports.relays, extra)

        def keep_settings(settings: Settings) -> None:
            channel.send(KeepSettings(dump_settings(settings)))

        fetcher = Fetcher(settings.cache.folder, open_source)
        seams = Seams(self._engines, keep, publish, fetcher, remember, keep_settings)
        serving = Serving.load(welcome.serving)
        self._deciding = deciding = await Deciding.begin(
            settings, serving, seams, welcome.name, welcome.started, welcome.state
        )
        deciding.control.note()  # engines may have told something meanwhile
        tasks = self._tasks
        admin = await serve_on(sockets, build_admin_app(deciding.desk, read_metrics, settings.admin.secret), tasks)
        channel.send(Up())
        tasks.start(_stay_alive(channel), "stay alive")
        await self._orders.stop.wait()
        admin.should_exit = True
        await asyncio.wait([admin.serving], timeout=_ASK_TIMEOUT_S)
        await deciding.close()
        await tasks.close()
        return 0

    async def _take_feedback(self, deciding: Deciding, asked: GiveFeedback) -> None:
        told, fault = {}, None
        try:
            told = await deciding.feedback.give(asked.request_id, asked.metric, asked.value, asked.caller)
        except GatewayError as error:
            fault = Fault.of(error)
        if self._channel is not None:
            self._channel.send(FeedbackGiven(asked.number, asked.relay, told, fault))

    def _take(self, message: AnyMessage) -> None:
        if isinstance(message, Engines):
            self._engines.told = message
            if self._deciding is not None:
                self._deciding.control.note()
        elif isinstance(message, Reload) and self._deciding is not None:
            self._deciding.reload_soon()
        elif isinstance(message, Observations) and self._deciding is not None:
            self._deciding.evidence.take(message.observed)
        elif isinstance(message, GiveFeedback) and self._deciding is not None:
            self._tasks.start(self._take_feedback(self._deciding, message), "take feedback")
        elif isinstance(message, AdapterSet):
            self._engines.mounting.take(message.number, message)
        elif isinstance(message, Reports):
            self._reports.take(message.number, message)


async def _stay_alive(channel: Channel) -> None:
    while True:
        await asyncio.sleep(_ALIVE_EVERY_S)
        channel.send(Alive())


if __name__ == "__main__":
    run_child(lambda channel_fd, sockets: ControlProcess().run(channel_fd, sockets))
