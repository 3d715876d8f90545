"""Who may call the public port: keys, known by their hashes only."""

import hashlib
from collections.abc import Mapping

from gateway.errors import Unauthorized
from gateway.traffic.routes import Caller

_HOW = "send authorization: Bearer KEY (or x-api-key: KEY) with a key that this gateway knows."


class KeyRing:
    """The keys that are let in. `callers` have them, by the SHA-256 of each in hexadecimal digits."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        self._callers: dict[bytes, Caller] = {}
        self.replace(callers)

    def replace(self, callers: Mapping[str, Caller]) -> bool:
        """Let these in from now on, and nobody else. False if they are who was let in before."""
        # Keys are long and random: a fast hash is enough, and a look-up by hash tells an attacker's clock nothing.
        known, self._callers = self._callers, {bytes.fromhex(sha256): caller for sha256, caller in callers.items()}
        return known != self._callers

    def check(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Whose key a request shows. Raises Unauthorized where it shows none or an unknown one."""
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":  # none, or one for a proxy on the way
            key = headers.get(b"x-api-key", b"")
        key = key.strip()
        if not key:
            raise Unauthorized(f"This request shows no API key: {_HOW}")
        caller = self._callers.get(hashlib.sha256(key).digest())
        if caller is None:
            raise Unauthorized(f"The API key is not known here: {_HOW}")
        return caller
