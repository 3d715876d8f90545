"""Who may call the public port: keys, known by their hashes only."""

import hashlib
from collections.abc import Mapping

from gateway.errors import Unauthorized

_HOW = "send authorization: Bearer KEY (or x-api-key: KEY) with a key that this gateway knows."


class KeyRing:
    """The keys that are let in. `hashes` maps the SHA-256 of each key, as 32 bytes, to the key's name."""

    def __init__(self, hashes: Mapping[bytes, str]) -> None:
        # Keys are long and random: a fast hash is enough, and a look-up by hash tells an attacker's clock nothing.
        self._hashes = dict(hashes)

    def check(self, headers: Mapping[bytes, bytes]) -> str:
        """The name of the key that a request shows. Raises Unauthorized where it shows none or an unknown one."""
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":  # none, or one for a proxy on the way
            key = headers.get(b"x-api-key", b"")
        key = key.strip()
        if not key:
            raise Unauthorized(f"This request shows no API key: {_HOW}")
        name = self._hashes.get(hashlib.sha256(key).digest())
        if name is None:
            raise Unauthorized(f"The API key is not known here: {_HOW}")
        return name
