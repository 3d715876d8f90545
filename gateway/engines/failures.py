"""What ends a life of an engine before its time."""

import logging

logger = logging.getLogger(__name__)


class EngineFailed(Exception):
    """The engine is gone or of no use; `is_final`: trying again as it is cannot help."""

    def __init__(self, reason: str, tail: list[str] | None = None, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tail = tuple(tail or ())
        self.is_final = is_final


def as_failure(error: Exception) -> EngineFailed:
    """What ended a life, as a failure of its engine."""
    if isinstance(error, EngineFailed):
        return error
    logger.error("an engine's keeper met something unforeseen", exc_info=error)
    return EngineFailed(f"the gateway could not keep it: {error!r}")
