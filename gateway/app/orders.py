"""What signals ask a process of ours to do."""

import asyncio
import signal
from collections.abc import Callable


class Orders:
    """SIGTERM and SIGINT: the first one sets `stop`, a second one `hurry`. SIGHUP calls `on_reload`.

    A process that `has_parent` is told by that one when to hurry: what looks like a second signal may be the same one,
    sent to every process of ours and passed on by the parent.
    """

    def __init__(self, *, has_parent: bool = False) -> None:
        self._has_parent = has_parent
        self.on_reload: Callable[[], object] = lambda: None  # a child's is its parent's to know of
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.take)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.on_reload())

    def take(self) -> None:
        """One more order to stop."""
        if not self.stop.is_set():
            self.stop.set()
        elif not self._has_parent:
            self.hurry.set()
