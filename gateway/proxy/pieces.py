"""Bytes on their way out in several pieces: small ones joined into one write, large ones passed on without a copy."""

import asyncio
from collections.abc import Sequence

Piece = bytes | memoryview

LARGE_BYTES = 64 * 1024
"""Below it one write is cheaper than a copy saved."""


def write_pieces(transport: asyncio.Transport, pieces: Sequence[Piece]) -> None:
    """Write `pieces` one after the other."""
    if sum(map(len, pieces)) < LARGE_BYTES:
        transport.write(b"".join(pieces))
    else:
        transport.writelines(pieces)
