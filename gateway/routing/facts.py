"""What a policy may know of a request."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of one request.

    `luck` is a random number in [0, 1), `turn` counts requests. `session` tells clients apart, `prefix` conversations:
    the same bytes mean that the engine's cache of one request serves the other. `prefix` is empty where it was not
    asked for.
    """

    luck: float = 0.0
    turn: int = 0
    session: bytes = b""
    prefix: bytes = b""
