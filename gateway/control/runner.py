"""The gateway that does what only one of a fleet may do: it has the lease, and its word ends with it."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec

from gateway.control.standing import Standing, decode
from gateway.errors import StateUnavailable
from gateway.state import Documents, Lease, LeaseLost

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_LEASE_S = 5.0
_LEASE = "runner"

Duty = Callable[[Lease, Sequence[Standing]], Coroutine[Any, Any, None]]
"""Something that one gateway does for all, by how the versions stand on each. Its commits carry the lease."""


class Runner:
    """Says each second how the versions stand here and, while it has the lease, does the `duties`.

    `gateways` is how they stand on each gateway of the fleet, by its name.
    """

    def __init__(
        self, store: Documents, name: str, read_standing: Callable[[], Standing], duties: Sequence[Duty]
    ) -> None:
        self.name = name
        self.gateways: Mapping[str, Standing] = {}
        self.lease: Lease | None = None
        self._store = store
        self._read_standing = read_standing
        self._duties = duties
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Do the duties now: something has changed that they may wait for."""
        self._woken.set()

    async def run(self) -> None:
        """Go on for ever."""
        while True:
            self._woken.clear()
            try:
                await self._act()
            except (StateUnavailable, LeaseLost):
                self.lease = None  # the mirror says that the state is away
            except Exception:  # a defect in one duty must not end all of them for good
                logger.exception("the runner failed")
            try:
                async with asyncio.timeout(_EVERY_S):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def close(self) -> None:
        """Let another gateway take over at once."""
        if self.lease is not None:
            with contextlib.suppress(StateUnavailable):  # it ends by itself
                await self._store.release(self.lease)

    async def _act(self) -> None:
        standing = msgspec.structs.replace(self._read_standing(), acts=self.lease is not None)
        told = await self._store.report(self.name, msgspec.json.encode(standing), _LEASE_S)
        self.gateways = decode(told)
        had = self.lease
        self.lease = await self._store.hold(_LEASE, self.name, _LEASE_S)
        if self.lease is None:
            return
        if had is None and len(self.gateways) > 1:
            logger.info("this gateway is the one that acts for all %d", len(self.gateways))
        for duty in self._duties:
            # What they stand like here may have changed since it was told.
            standings = [one for name, one in self.gateways.items() if name != self.name]
            try:
                await duty(self.lease, [*standings, self._read_standing()])
            except (StateUnavailable, LeaseLost):
                raise
            except Exception:  # a defect in one duty must not keep the others from being done
                logger.exception("the runner failed")
