"""A decoder that finds everything nested too deeply: how much it takes depends on the stack, and on Python's version."""

from typing import Never


class TooDeep:
    """In the place of one of msgspec's."""

    def decode(self, raw: object) -> Never:
        raise RecursionError("maximum recursion depth exceeded while deserializing an object")
