"""Control with its state and its duties: what a gateway of one process and control's own process both run."""

import asyncio
import logging
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from gateway.api.admin import Desk
from gateway.control.control import AdapterFetcher, Control, Engines
from gateway.control.mirror import UNKNOWN, StateMirror
from gateway.control.runner import Runner
from gateway.control.serving import Serving
from gateway.errors import StateUnavailable
from gateway.settings import Settings
from gateway.state import Snapshot, open_store
from gateway.tasks import TaskSet
from gateway.traffic.routes import Routes

logger = logging.getLogger(__name__)

_PATIENCE_S = 5.0
_LOOK_EVERY_S = 0.25


def make_name() -> str:
    """What this gateway is called among those that share its state."""
    return f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True)
class Seams:
    """How control reaches the rest of the gateway, see `Control`; `remember` keeps documents for its successor."""

    engines: Engines
    keep: Callable[[Serving], None]
    publish: Callable[[Routes], None]
    fetcher: AdapterFetcher
    remember: Callable[[Snapshot], None] = lambda snapshot: None


class Deciding:
    """Everything that decides, from `begin` to `close`."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._tasks = TaskSet()

    @property
    def control(self) -> Control:
        """The one who decides what is served."""
        return self.desk.control

    @classmethod
    async def begin(
        cls,
        settings: Settings,
        serving: Serving,
        seams: Seams,
        name: str,
        started: int | None = None,
        known: Snapshot = UNKNOWN,
    ) -> "Deciding":
        """Read the state, and serve by it. `known` is what a predecessor had read of it, `started` see `Control`."""
        store = open_store(settings.state.url)
        mirror = StateMirror(store, known, seams.remember)
        await _await_state(mirror)
        control = Control(serving, seams.engines, seams.keep, seams.publish, seams.fetcher, mirror, started)
        runner = Runner(store, name, control.read_standing, [control.hand_over])
        control.on_standing = runner.wake
        self = cls(Desk(control, mirror, runner, store))
        self._tasks.start(mirror.run(), "look at the state")
        self._tasks.start(runner.run(), "do what one gateway does for all")
        self._tasks.start(self._settle(), "remember who has which version")
        return self

    async def close(self) -> None:
        """Stop deciding."""
        await self._tasks.close()
        await self.control.close()
        await self.desk.runner.close()
        await self.desk.store.close()

    async def _settle(self) -> None:
        while True:
            try:
                return await self.control.settle()
            except StateUnavailable:
                await asyncio.sleep(_LOOK_EVERY_S)


async def _await_state(mirror: StateMirror) -> None:
    """Read the state; a server that is started at the same time may take a moment."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + _PATIENCE_S
    await mirror.look()
    while mirror.is_away and loop.time() < until_s:
        await asyncio.sleep(_LOOK_EVERY_S)
        await mirror.look()
    if not mirror.is_known:
        logger.error("starting without the state: until it can be read, the settings alone say what is served")
