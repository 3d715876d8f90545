"""Where an engine goes, and which versions must sleep so that it fits. Pure: facts in, decision out.

An amount is bytes on a machine without GPUs, which is one device; on GPUs it is thousandths of a device's memory, since
vLLM takes a share of what there is. Both only bound what is planned: what an engine really takes is its own affair.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.fleet.replica import VersionKey


@dataclass(frozen=True, slots=True)
class Device:
    """A device, and what engines may take of it."""

    name: str
    capacity: int


@dataclass(frozen=True, slots=True)
class Need:
    """What an engine takes: an `amount` of each of `count` devices. `pinned` names them, where the settings do."""

    count: int = 1
    amount: int = 0
    pinned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resident:
    """An engine that has its place. `idle_s` is how long its version was not asked for anything, None while it is busy.

    Only a version that `can_sleep` is ever asked to make room. One that `is_leaving` will have gone soon.
    """

    version: VersionKey
    devices: tuple[str, ...]
    amount: int
    can_sleep: bool = False
    idle_s: float | None = None
    is_leaving: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """It fits here, as things are."""

    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evict:
    """It fits when these versions sleep."""

    versions: tuple[VersionKey, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """It fits when versions that are busy can sleep, or are gone; those that are leaving anyway if `is_certain`."""

    versions: tuple[VersionKey, ...]
    is_certain: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """It does not fit beside the engines that stay; `never`: not even alone."""

    never: bool
    free: int


Decision = Place | Evict | Wait | Refuse


def place(need: Need, devices: Sequence[Device], residents: Sequence[Resident]) -> Decision:
    """Find devices for an engine. Of versions that may sleep the longest idle go first, and no more than it takes."""
    found = _fit(need, devices, residents)
    if found is not None:
        return Place(found)
    idle = sorted({one.version: one.idle_s for one in residents if one.can_sleep and one.idle_s is not None}.items(),
                  key=lambda item: -item[1])  # fmt: skip
    leaving = tuple(dict.fromkeys(one.version for one in residents if one.is_leaving))
    if leaving and _fit(need, devices, [one for one in residents if not one.is_leaving]) is not None:
        return Wait(leaving, is_certain=True)
    victims: list[VersionKey] = []
    for version, _ in idle:
        victims.append(version)
        if _fit(need, devices, _without(residents, victims)) is not None:
            return Evict(_spare(need, devices, residents, victims))
    staying = [one for one in residents if not one.can_sleep and not one.is_leaving]
    if _fit(need, devices, staying) is not None:
        busy = (one for one in residents if one.is_leaving or (one.can_sleep and one.idle_s is None))
        return Wait(tuple(dict.fromkeys(one.version for one in busy)))
    free = sorted((_free(device, staying) for device in _usable(need, devices)), reverse=True)
    return Refuse(never=_fit(need, devices, ()) is None, free=free[need.count - 1] if need.count <= len(free) else 0)


def _spare(
    need: Need, devices: Sequence[Device], residents: Sequence[Resident], victims: list[VersionKey]
) -> tuple[VersionKey, ...]:
    """Victims without those whose leaving was not needed in the end: they were on other devices."""
    for version in victims[:-1]:
        fewer = [one for one in victims if one != version]
        if _fit(need, devices, _without(residents, fewer)) is not None:
            victims = fewer
    return tuple(victims)


def _without(residents: Sequence[Resident], versions: Sequence[VersionKey]) -> list[Resident]:
    return [one for one in residents if one.version not in versions]


def _fit(need: Need, devices: Sequence[Device], residents: Sequence[Resident]) -> tuple[str, ...] | None:
    """The fullest devices that still have room, so that large engines find empty ones."""
    free = {device.name: _free(device, residents) for device in _usable(need, devices)}
    fitting = sorted((name for name, room in free.items() if room >= need.amount), key=lambda name: free[name])
    return tuple(fitting[: need.count]) if len(fitting) >= need.count else None


def _usable(need: Need, devices: Sequence[Device]) -> list[Device]:
    return [device for device in devices if not need.pinned or device.name in need.pinned]


def _free(device: Device, residents: Sequence[Resident]) -> int:
    return device.capacity - sum(one.amount for one in residents if device.name in one.devices)
