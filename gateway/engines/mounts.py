"""The adapters of one engine: those it is to have, and those that its running process has. One writer: its keeper."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from gateway.engines.engine import EngineSpec, SmokePrompt, find_public_id


class MountProbe(Protocol):
    """What mounts and takes off; `probe.Probe` is the real one."""

    async def load_adapter(self, name: str, folder: Path, smoke: tuple[SmokePrompt, ...] = ()) -> None: ...
    async def unload_adapter(self, name: str) -> None: ...
    async def close(self) -> None: ...


class Mounts:
    """What is mounted on one engine. `spec` is what its next life begins with; `make_probe` reaches the running one."""

    def __init__(self, spec: EngineSpec, make_probe: Callable[[EngineSpec], MountProbe]) -> None:
        self.spec = spec
        self._make_probe = make_probe
        self._mounted: set[str] = set()
        self._digests: dict[str, str] = {}

    def begin(self, launched: EngineSpec, digests: Mapping[str, str]) -> None:
        """A process runs that was launched so, from files with these digests."""
        self._mounted = {name for name, _ in launched.adapters}
        self._digests |= digests

    def end(self) -> None:
        """The process is gone."""
        self._mounted = set()

    def has(self, name: str) -> bool:
        """True if the running engine has an adapter of this name, known or not."""
        return name in self._mounted

    def find_missing(self) -> tuple[str, Path] | None:
        """An adapter that the running engine is to have and has not."""
        return next(((name, folder) for name, folder in self.spec.adapters if name not in self._mounted), None)

    def hold(self, spec: EngineSpec, digests: Mapping[str, str]) -> None:
        """From here on these are the engine's adapters, in its next life too."""
        self.spec = spec
        self._digests |= digests

    def drop(self, name: str) -> None:
        """The engine goes without this one."""
        rest = tuple(pair for pair in self.spec.adapters if pair[0] != name)
        remake = self.spec.remake
        self.spec = replace(self.spec, adapters=rest) if remake is None else remake(rest)

    async def mount(self, name: str, folder: Path) -> None:
        """Mount one more adapter, if the engine has not got it. Raises ProbeFailed, and then it is not mounted.

        It must answer, the smoke prompts for its public id too.
        """
        if name in self._mounted:
            return
        prompts = tuple(replace(one, name=name) for one in self.spec.smoke if one.name == find_public_id(name))
        probe = self._make_probe(self.spec)
        try:
            await probe.load_adapter(name, folder, prompts)
            self._mounted.add(name)
        finally:
            await probe.close()

    async def unmount(self, name: str) -> None:
        """Take an adapter off, if the engine has got it. Raises ProbeFailed."""
        if name not in self._mounted:
            return
        probe = self._make_probe(self.spec)
        try:
            await probe.unload_adapter(name)
            self._mounted.discard(name)
        finally:
            await probe.close()

    def describe(self, *, is_up: bool) -> dict[str, Any]:
        """The `adapters` of the engine's status, of a running engine those that it has, and the `digests` it serves."""
        names = tuple(name for name, _ in self.spec.adapters if not is_up or name in self._mounted)
        served = ("", *names) if is_up else ()
        return {"adapters": names, "digests": {name: self._digests[name] for name in served if name in self._digests}}


def find_smoke(spec: EngineSpec) -> tuple[SmokePrompt, ...]:
    """The smoke prompts, by the names that model and adapters have by now; without those of adapters that are gone."""
    names = {find_public_id(name): name for name, _ in spec.adapters} | {spec.served_name: spec.served_name}
    return tuple(replace(prompt, name=names[prompt.name]) for prompt in spec.smoke if prompt.name in names)
