"""What an engine needs before it is launched: its files here and looked at, a place, and proof of its speculation."""

import asyncio
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from gateway.engines.engine import Admission, EngineSpec, EngineState, ProbeFailed
from gateway.engines.failures import EngineFailed
from gateway.engines.mounts import Mounts
from gateway.engines.placement import Need
from gateway.engines.process import LaunchSpec
from gateway.engines.room import NoRoom, Room
from gateway.engines.settling import settle
from gateway.engines.tools import KeeperTiming, KeeperTools
from gateway.engines.want import Want, Wanted
from gateway.sources import SourceFailed

logger = logging.getLogger(__name__)


class Update(Protocol):
    """Takes notice of the engine's state, and of what else has changed in its status."""

    def __call__(self, state: EngineState, **changes: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """An engine that may be launched: what the look at its files said, the names of its devices, and how."""

    spec: EngineSpec
    admission: Admission
    devices: tuple[str, ...]
    launch: LaunchSpec


class Preparation:
    """The preparation of one life. `tell` gets every change of the engine's status."""

    def __init__(
        self, mounts: Mounts, tools: KeeperTools, timing: KeeperTiming, room: Room, want: Want, tell: Update, *,
        has_been_up: bool,
    ) -> None:  # fmt: skip
        self._mounts = mounts
        self._tools = tools
        self._timing = timing
        self._room = room
        self._want = want
        self._tell = tell
        self._has_been_up = has_been_up
        self._name = mounts.spec.name

    async def run(self) -> Prepared | None:
        """Up to a place on the devices; None when it is not wanted any more. Raises EngineFailed."""
        await self._settle()
        if not self._want.is_up:
            return None
        folder = self._mounts.spec.checkpoint
        self._tell(
            EngineState.STARTING, phase="checking the checkpoint", progress=0.0,
            checkpoint=None if folder is None else str(folder),
        )  # fmt: skip
        async with self._tools.turns:
            spec = self._mounts.spec
            admission = await asyncio.to_thread(self._tools.admit, spec)
        if admission.fault is not None:
            # What was served before may only be out of reach for a moment.
            raise EngineFailed(admission.fault, is_final=not self._has_been_up)
        try:
            # It may read files. What cannot be launched takes nobody's place.
            launch = await asyncio.to_thread(spec.build_launch)
        except ValueError as error:
            raise EngineFailed(str(error), is_final=True) from error
        devices = await self._want.while_up(self._claim(spec, admission), self._name)
        return None if devices is None else Prepared(spec, admission, devices, show_devices(launch, devices))

    async def prove_parity(self, prepared: Prepared) -> bool | None:
        """See that speculation changes no answer; None when the engine is not wanted any more. Raises EngineFailed."""
        spec, devices = prepared.spec, prepared.devices
        if spec.trials is None:
            return True
        self._tell(EngineState.STARTING, phase="comparing answers with and without speculation")
        guessing, plain = (replace(one, build_launch=partial(_build_placed, one, devices)) for one in spec.trials)
        placed = replace(spec, trials=(guessing, plain))
        proving = self._tools.parity.prove(placed, prepared.admission, self._tools, self._timing.start_timeout_s)
        try:
            return await self._want.while_up(proving, self._name)
        except ValueError as error:
            raise EngineFailed(str(error), is_final=True) from error
        except ProbeFailed as error:
            raise EngineFailed(str(error), is_final=error.is_final and not self._has_been_up) from error

    async def _settle(self) -> None:
        """Fetch what lies elsewhere, once. Raises EngineFailed."""

        def note(phase: str, fraction: float) -> None:
            if self._want.is_up:
                self._tell(EngineState.STARTING, phase=phase, progress=fraction)

        try:
            spec = await self._want.while_up(settle(self._mounts.spec, self._tools.fetch, note), self._name)
        except SourceFailed as failure:
            raise EngineFailed(str(failure), is_final=failure.is_final) from failure
        if spec is not None:
            self._mounts.spec = spec

    async def _claim(self, spec: EngineSpec, admission: Admission) -> tuple[str, ...] | None:
        """A place for it; None if it rather sleeps: it may, nobody has asked for it yet, and others are there."""

        def note(phase: str) -> None:
            self._tell(EngineState.STARTING, phase=phase)

        may_sleep, want = spec.sleep_after_s is not None, self._want
        may_evict = not want.is_due and (not may_sleep or want.is_asked)
        need = _estimate_need(spec, admission.weights_bytes)
        try:
            return await self._room.claim(spec, need, may_evict=may_evict, note=note)
        except NoRoom as error:
            must_be_up = (
                not may_sleep or want.is_due or (want.is_asked and not self._room.has(spec.model, spec.version))
            )
            if must_be_up or error.is_final:
                raise EngineFailed(str(error), is_final=error.is_final) from error
            logger.info("%s sleeps from the start: %s", self._name, error)
            self._want.set(Wanted.ASLEEP)
            return None


def show_devices(launch: LaunchSpec, devices: tuple[str, ...]) -> LaunchSpec:
    """What to launch, shown its devices alone; what the settings say of them has the last word."""
    shown = {} if devices == ("cpu",) else {"CUDA_VISIBLE_DEVICES": ",".join(devices)}
    return replace(launch, env={**shown, **launch.env})


def _build_placed(trial: EngineSpec, devices: tuple[str, ...]) -> LaunchSpec:
    return show_devices(trial.build_launch(), devices)


def _estimate_need(spec: EngineSpec, weights_bytes: int) -> Need:
    """What it takes of a device, its trials too: they run in its place, in float32, which is twice as wide."""
    need = spec.estimate_need(weights_bytes)
    trials = (trial.estimate_need(2 * weights_bytes).amount for trial in spec.trials or ())
    return replace(need, amount=max((need.amount, *trials)))
