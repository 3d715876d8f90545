"""Control with its state and its duties: what a gateway of one process and control's own process both run."""

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import Metric

from gateway.api.admin import Desk
from gateway.control.adapters import AdapterFetcher
from gateway.control.control import Control, Engines
from gateway.control.evidence import EvidenceDesk
from gateway.control.experiments import Experiments
from gateway.control.feedback import FeedbackDesk
from gateway.control.keys import Keys
from gateway.control.mirror import UNKNOWN, StateMirror
from gateway.control.reloading import find_ignored
from gateway.control.rollouts import Rollouts
from gateway.control.runner import Runner
from gateway.control.serving import Serving
from gateway.errors import BadRequest, Conflict, GatewayError, StateUnavailable
from gateway.settings import Settings, SettingsError, load
from gateway.state import Snapshot, Store, open_store
from gateway.tasks import TaskSet
from gateway.telemetry.traffic import tell_traffic
from gateway.traffic.routes import Routes

logger = logging.getLogger(__name__)

_PATIENCE_S = 5.0
_LOOK_EVERY_S = 0.25


def make_name() -> str:
    """What this gateway is called among those that share its state."""
    return f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True)
class Seams:
    """How control reaches the rest of the gateway, see `Control`.

    For its successor `remember` keeps documents, and `keep_settings` the settings when their file was read again.
    """

    engines: Engines
    keep: Callable[[Serving], None]
    publish: Callable[[Routes], None]
    fetcher: AdapterFetcher
    remember: Callable[[Snapshot], None] = lambda snapshot: None
    keep_settings: Callable[[Settings], None] = lambda settings: None


class Deciding:
    """Everything that decides, from `begin` to `close`."""

    def __init__(
        self,
        settings: Settings,
        control: Control,
        keys: Keys,
        rollouts: Rollouts,
        runner: Runner,
        store: Store,
        mirror: StateMirror,
        keep_settings: Callable[[Settings], None],
    ) -> None:
        experiments = Experiments(store, lambda: control.serving)
        self.desk = Desk(control, keys, rollouts, experiments, runner, store, self.reload)
        self.evidence = EvidenceDesk(store, control.find_price, lambda: control.serving.list_texts())
        self.feedback = FeedbackDesk(store, self.evidence, lambda name: control.serving.find_model(name))
        self._settings = settings
        self._keep_settings = keep_settings
        self._mirror = mirror
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
        keys = Keys(settings.auth.keys, mirror)
        control = Control(serving, seams.engines, seams.keep, seams.publish, seams.fetcher, mirror, keys, started)
        rollouts = Rollouts(control, mirror, store)
        runner = Runner(store, name, control.read_standing, [control.hand_over, rollouts.step])
        control.on_standing = runner.wake
        self = cls(settings, control, keys, rollouts, runner, store, mirror, seams.keep_settings)
        await self._go_on_reloading()
        self._tasks.start(mirror.run(), "look at the state")
        self._tasks.start(runner.run(), "do what one gateway does for all")
        self._tasks.start(control.settle(), "remember who has which version")
        self._tasks.start(self.evidence.run(), "write what was observed")
        return self

    async def _go_on_reloading(self) -> None:
        """Wait on for what the settings file says, if control ended while it waited for it."""
        if self.control.serving.file != self._settings.models:
            try:
                await self.control.reload(self._settings.models)
            except GatewayError as error:
                logger.error("the settings file is not served: %s", error.message)  # noqa: TRY400 - a sentence is enough

    def list_metrics(self) -> Iterator[Metric]:
        """What Prometheus is told of what is decided."""
        models = self.control.serving.models
        shares = {model.name: model.split for model in models}
        rollouts = {model.name: name for model in models if (name := self.control.serving.read(model.name).rollout)}
        return tell_traffic(shares, rollouts, is_state_away=self._mirror.is_away, dropped=self.evidence.dropped)

    async def close(self) -> None:
        """Stop deciding."""
        await self._tasks.close()
        with contextlib.suppress(StateUnavailable):
            await self.evidence.write()
        await self.control.close()
        await self.desk.runner.close()
        await self.desk.store.close()

    def reload_soon(self) -> None:
        """As `reload`, for a signal: what comes of it is told in the log."""
        self._tasks.start(self._reload_and_tell(), "read the settings file again")

    async def _reload_and_tell(self) -> None:
        try:
            told = await self.reload(is_reset=False)
        except GatewayError as error:
            logger.error("%s Nothing has changed.", error.message)  # noqa: TRY400 - a sentence is enough
        else:
            logger.info("the settings file was read again: %s", told)

    async def reload(self, *, is_reset: bool) -> dict[str, Any]:
        """Serve what the settings file says by now; returns what comes of it, in words for people.

        Raises BadRequest for a file that cannot be used, Conflict and StateUnavailable; then nothing has changed.
        """
        known = self._settings
        if known.path is None:
            raise Conflict("This gateway was started without a settings file: there is nothing to read again.")
        environ = {**os.environ, known.admin.key_env: known.admin.secret or ""}
        try:
            settings = await asyncio.to_thread(load, known.path, known.flags, environ)
        except SettingsError as error:
            raise BadRequest(f"The settings file cannot be used: {error}.") from error
        reloading = await self.control.reload(settings.models, is_reset=is_reset)
        self.desk.keys.renew(settings.auth.keys)
        self.control.note()
        # Other sections count at the next start only: they stay what they were.
        auth = known.auth.model_copy(update={"keys": settings.auth.keys})
        self._settings = known.model_copy(update={"models": settings.models, "auth": auth})
        self._keep_settings(self._settings)
        return {
            "loading": sorted(reloading.awaited),
            "needs_restart": find_ignored(known, settings),
            "changed_at_run_time": self.control.serving.list_touched(),
        }


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
