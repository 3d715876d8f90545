"""Who has which place on the devices. Keepers claim one before they launch and release it when the process is gone."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.engines.engine import EngineSpec
from gateway.engines.placement import Decision, Device, Evict, Need, Place, Refuse, Resident, Wait, place
from gateway.fleet.replica import VersionKey

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0
_GIB = 2**30


class NoRoom(Exception):
    """There is no place for an engine; the message is a sentence for people. `is_final`: nor would there ever be."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class Idle:
    """What the one who keeps the engines says of their versions, and does to them.

    `find` gives those that may sleep now, and how long, in seconds, nobody has asked for them; `rest` lets one sleep.
    """

    find: Callable[[], Mapping[VersionKey, float]]
    rest: Callable[[VersionKey], None]


class Room:
    """The places of all engines of a gateway."""

    def __init__(self, devices: Sequence[Device], idle: Idle) -> None:
        self._devices = tuple(devices)
        self._idle = idle
        self._residents: dict[str, Resident] = {}
        self._changed = asyncio.Event()

    async def claim(
        self, spec: EngineSpec, need: Need, *, may_evict: bool, note: Callable[[str], None]
    ) -> tuple[str, ...]:
        """A place for an engine, which it has until `release`: the names of its devices.

        It may take the place of versions that sleep for it, and waits until they do, which it tells `note`; unless it
        may not evict: that raises NoRoom at once, as what does not fit at all does.
        """
        version = (spec.model, spec.version)
        placed = self._residents.get(spec.name)
        if placed is not None and (len(placed.devices), placed.amount) == (need.count, need.amount):
            return placed.devices  # it comes back
        self.release(spec.name)
        while True:
            decision = self._decide(need, version)
            if isinstance(decision, Place):
                self._residents[spec.name] = Resident(
                    version, decision.devices, need.amount, can_sleep=spec.sleep_after_s is not None
                )
                return decision.devices
            if isinstance(decision, Refuse):
                raise NoRoom(self._explain(need, decision), is_final=decision.never)
            names = ", ".join(map(":".join, decision.versions))
            # One engine of a version may ask others to sleep; further ones are content with what is left.
            is_first = not self.has(*version)
            if not (may_evict and is_first) and not (isinstance(decision, Wait) and decision.is_certain):
                raise NoRoom(f"the room is taken by {names}")
            if isinstance(decision, Evict):
                logger.info("%s makes room for %s", names, spec.name)
                for victim in decision.versions:
                    self._idle.rest(victim)
            note(f"waiting for {names} to make room")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._changed.wait()

    def has(self, model: str, version: str) -> bool:
        """True if an engine of the version has a place."""
        return any(one.version == (model, version) for one in self._residents.values())

    def has_place(self, name: str) -> bool:
        """True if the engine of that name has a place."""
        return name in self._residents

    def let_leave(self, name: str) -> None:
        """The engine of that name will be gone soon."""
        if (placed := self._residents.get(name)) is not None:
            self._residents[name] = replace(placed, is_leaving=True)

    def release(self, name: str) -> None:
        """The engine of that name is gone."""
        if self._residents.pop(name, None) is not None:
            self._changed.set()
            self._changed = asyncio.Event()

    def _decide(self, need: Need, version: VersionKey) -> Decision:
        """An engine never asks others of its own version to make room."""
        idle = self._idle.find()
        residents = [
            replace(one, idle_s=idle.get(one.version), can_sleep=one.can_sleep and one.version != version)
            for one in self._residents.values()
        ]
        return place(need, self._devices, residents)

    def _explain(self, need: Need, refusal: Refuse) -> str:
        usable = [one for one in self._devices if not need.pinned or one.name in need.pinned]
        if len(usable) < need.count:
            return f"it needs {need.count} devices, and there are {len(usable)}"
        if self._devices[0].name == "cpu":
            wanted, free = f"{need.amount / _GIB:.1f} GiB", f"{max(0, refusal.free) / _GIB:.1f} GiB"
            mend = "free memory, lower kv-cache-memory-bytes, or raise engines.memory"
        else:
            wanted, free = f"{need.amount / 10:g} %", f"{max(0, refusal.free) / 10:g} %"
            mend = "lower gpu-memory-utilization, or unload another version"
        each = "" if need.count == 1 else f" of each of {need.count} devices"
        stay = "" if refusal.never else " beside the engines that stay"
        return f"it needs {wanted} of memory{each}, and {free} can be had{stay}: {mend}"
