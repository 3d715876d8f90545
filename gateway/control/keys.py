"""The keys that clients may show, of the file and made at run time. All are known by their hashes only."""

import hashlib
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.control.mirror import Decision, StateMirror
from gateway.errors import BadRequest, Conflict, NotFound
from gateway.settings import KeySettings, find_name_fault
from gateway.state import Event, Snapshot
from gateway.traffic.routes import Caller

logger = logging.getLogger(__name__)

_PREFIX = "key/"
_KEY_BYTES = 32


class _Made(BaseModel):
    """A key that was made at run time; a document of the store."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    may_pin: bool = True
    made: float = 0.0


class Keys:
    """All keys that are known. `file` are those of the settings, which count as long as they stand there."""

    def __init__(self, file: Sequence[KeySettings], mirror: StateMirror) -> None:
        self._file = {key.name: key for key in file}
        self._made: dict[str, _Made] = {}
        self._mirror = mirror
        mirror.listeners.append(self._take)
        self._take(mirror.snapshot)

    def renew(self, file: Sequence[KeySettings]) -> None:
        """The settings have others by now."""
        self._file = {key.name: key for key in file}

    def callers(self) -> dict[str, Caller]:
        """Who may call, by the SHA-256 of the key."""
        made = {key.sha256: Caller(name, key.may_pin) for name, key in self._made.items()}
        return made | {key.sha256: Caller(key.name, key.may_pin) for key in self._file.values()}

    def describe(self) -> list[dict[str, Any]]:
        """The keys as the admin API shows them; none of them can be read any more."""
        found = [{"name": key.name, "may_pin": key.may_pin, "source": "file"} for key in self._file.values()]
        return found + [
            {"name": name, "may_pin": key.may_pin, "source": "state", "made": key.made}
            for name, key in sorted(self._made.items())
        ]

    async def make(self, name: str, *, may_pin: bool) -> str:
        """Make a key and return it, which is the only time that it is seen.

        Raises BadRequest, Conflict for a name that is taken, and StateUnavailable.
        """
        if fault := find_name_fault(name):
            raise BadRequest(f"The name of a key {fault}.", param="name")
        key = f"gw-{secrets.token_urlsafe(_KEY_BYTES)}"
        made = _Made(sha256=hashlib.sha256(key.encode()).hexdigest(), may_pin=may_pin, made=time.time())

        def decide(documents: Mapping[str, bytes]) -> Decision[None]:
            if name in self._file or _PREFIX + name in documents:
                raise Conflict(f"There is a key called {name} already: choose another name.", param="name")
            event = Event("key_made", f"the key {name} is made", details={"key": name, "may_pin": may_pin})
            return Decision({_PREFIX + name: made.model_dump_json().encode()}, (event,), None)

        await self._mirror.commit(decide)
        logger.info("the key %s is made", name)
        return key

    async def remove(self, name: str) -> None:
        """Let nobody in by this key any more. Raises NotFound, Conflict for one of the file, StateUnavailable."""
        if name in self._file:
            raise Conflict(f"The key {name} stands in the settings file: remove it there, and reload.")

        def decide(documents: Mapping[str, bytes]) -> Decision[None]:
            if _PREFIX + name not in documents:
                raise NotFound(f"There is no key called {name[:200]}.")
            event = Event("key_removed", f"the key {name} is removed", details={"key": name})
            return Decision({_PREFIX + name: None}, (event,), None)

        await self._mirror.commit(decide)
        logger.info("the key %s is removed", name)

    def _take(self, snapshot: Snapshot) -> None:
        self._made = {}
        for document, data in snapshot.documents.items():
            if document.startswith(_PREFIX):
                name = document.removeprefix(_PREFIX)
                try:
                    self._made[name] = _Made.model_validate_json(data)
                except ValidationError:
                    logger.exception("the key %s cannot be read, and lets nobody in", name)
