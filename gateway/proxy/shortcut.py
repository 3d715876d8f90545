"""The short way of a streamed token: a plain chunk goes on to the client as it came, not parsed and not framed anew.

Between two system calls Python costs several times what it costs in a loop, above all calls of functions: so the short
way is one function (`Connection.data_received`) that calls no other of ours.
"""

from collections.abc import Callable

LONGEST_CHUNK_BYTES = 4096
"""Longer ones are no token's."""


class Shortcut:
    """Where a stream's plain chunks go: to `write`, unless one of `stops` is in them. `event_count` counts events."""

    __slots__ = ("event_count", "stops", "write")

    def __init__(self, write: Callable[[bytes], None], stops: tuple[bytes, ...]) -> None:
        self.write = write
        self.stops = stops
        self.event_count = 0


def _list_starts() -> list[bytes]:
    starts = [bytes(LONGEST_CHUNK_BYTES)] * LONGEST_CHUNK_BYTES  # too long to be the start of anything: no such chunk
    for size in range(2, LONGEST_CHUNK_BYTES):  # a single line end would borrow one of the framing for its blank line
        start = b"%x\r\n" % size
        whole_bytes = len(start) + size + 2
        if whole_bytes < LONGEST_CHUNK_BYTES:
            starts[whole_bytes] = start
    return starts


CHUNK_STARTS = _list_starts()
"""How a read of so many bytes begins if it is one whole chunk, the size in the shortest form (RFC 9112, 7.1).

Any other form goes the long way: to compare is cheaper than to parse, and nothing can be read in two ways.
"""
