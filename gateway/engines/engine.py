"""What the rest of the program may know of an engine: its states and its status. Values only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from gateway.checkpoints import Drafting
from gateway.engines.placement import Need
from gateway.engines.process import LaunchSpec
from gateway.settings import SourceAddress
from gateway.telemetry.drafts import DraftCounts

Adapters = tuple[tuple[str, Path], ...]
"""The adapters of an engine: its own name for each, and the folder."""


def write_public_id(model: str, version: str, adapter: str) -> str:
    """The id that clients ask for an adapter by, and the engines' name for the first that had it."""
    return f"{model}:{version}+{adapter}"


def find_public_id(name: str) -> str:
    """The public id of an adapter by an engine's name for it; an adapter that took another's place has a longer one."""
    return name.partition("@")[0]


class EngineState(StrEnum):
    """Where an engine is in its life. Its keeper is the one writer.

    starting → warming → ready → draining → stopped, or asleep until it is asked for; and failed from anywhere. A failed
    engine that is tried again, and one that is woken, goes back to starting.
    """

    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    ASLEEP = "asleep"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SmokePrompt:
    """A question whose right answer has `expected` in it. `fields` are those of the request beside the messages.

    `name` is the engine's own for the model or the adapter that is asked.
    """

    prompt: str
    expected: str
    name: str
    image: Path | None = None
    system_prompt: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine to be kept: what to launch, where it will listen, and what it must be able to answer.

    `build_launch` may raise ValueError with a sentence for people. `checkpoint` and `adapters` are looked at before
    anything is started; None means there is nothing to look at. Code in the checkpoint's folder keeps it from being
    served unless the settings say that it `trusts_code`. `drafting` is how it guesses ahead. An engine that does not
    answer each prompt of `smoke` as expected is never ready. It may sleep when its version had no request for
    `sleep_after_s`, and one that `can_doze` keeps its process then. `estimate_need` tells, by the size of its weights
    in bytes, what it takes of a device. When less than `min_acceptance` of its guesses is right, `plain`, the same
    engine without guesses, takes its place. `trials`, one with guesses and one without, must answer alike before it is
    launched. `remake` gives the same engine with other adapters; it raises MountRefused where the engine was not
    started for such. `sources` are fetched first, and `settle` then gives the same engine with their folders, which
    until then has no `checkpoint`.
    """

    name: str
    model: str
    version: str
    index: int
    build_launch: Callable[[], LaunchSpec]
    can_fork: bool
    socket: Path
    served_name: str
    checkpoint: Path | None = None
    adapters: Adapters = ()
    trusts_code: bool = False
    drafting: Drafting | None = None
    smoke: tuple[SmokePrompt, ...] = ()
    sleep_after_s: float | None = None
    can_doze: bool = False
    estimate_need: Callable[[int], Need] = lambda weights_bytes: Need()
    min_acceptance: float | None = None
    plain: "EngineSpec | None" = None
    trials: tuple["EngineSpec", "EngineSpec"] | None = None
    remake: Callable[[Adapters], "EngineSpec"] | None = None
    sources: tuple[SourceAddress, ...] = ()
    settle: Callable[[Mapping[SourceAddress, Path]], "EngineSpec"] | None = None

    @property
    def address(self) -> str:
        """The address relays reach it under."""
        return f"unix://{self.socket}"


@dataclass(frozen=True, slots=True)
class Admission:
    """What a look at an engine's files says: the `fault` that forbids a start, if any, and whether it sees pictures.

    `digests` tell the files apart from all others: the checkpoint's under an empty name, adapters' under their ids.
    `weights_bytes` are the checkpoint's, as they are stored.
    """

    fault: str | None = None
    is_visual: bool = False
    weights_bytes: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """An engine at one moment. Times are seconds since the epoch; `progress` goes from 0 to 1 while it loads.

    `reason` is one sentence on the last failure; `tail` are the engine's last lines, kept when it failed. `digests` are
    those of the files it has loaded, see `Admission`; `checkpoint` is their folder, `adapters` its names for adapters.
    `drafts` is what has come of its guesses, over all of its lives, for one that guesses ahead. `note` is a sentence on
    what the gateway has made of it beyond its settings.
    """

    name: str
    model: str
    version: str
    state: EngineState
    since: float
    phase: str = ""
    progress: float | None = None
    reason: str | None = None
    tail: tuple[str, ...] = field(default=())
    restarts: int = 0
    next_try_at: float | None = None
    pid: int | None = None
    max_model_len: int | None = None
    ready_after_s: float | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str | None = None
    adapters: tuple[str, ...] = ()
    drafts: DraftCounts | None = None
    note: str | None = None


class MountRefused(Exception):
    """An adapter cannot be added or taken away; the message is a sentence for people."""


class ProbeFailed(Exception):
    """An engine's answer, or its silence, shows that it cannot serve; the message is a sentence for people.

    `is_final` if the same engine started anew would answer the same.
    """

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final
