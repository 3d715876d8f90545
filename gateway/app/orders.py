"""What signals ask a process of ours to do."""

import asyncio
import logging
import signal

logger = logging.getLogger(__name__)


class Orders:
    """SIGTERM and SIGINT: the first one sets `stop`, a second one `hurry`.

    A process that `has_parent` is told by that one when to hurry: what looks like a second signal may be the same one,
    sent to every process of ours and passed on by the parent.
    """

    def __init__(self, *, has_parent: bool = False) -> None:
        self._has_parent = has_parent
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.take)
        # Reserved for reading the file again: it must not end a gateway meanwhile.
        loop.add_signal_handler(signal.SIGHUP, logger.warning, "SIGHUP is ignored: settings are read at the start only")

    def take(self) -> None:
        """One more order to stop."""
        if not self.stop.is_set():
            self.stop.set()
        elif not self._has_parent:
            self.hurry.set()
