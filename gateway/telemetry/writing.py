"""Writing from a thread: a descriptor that takes nothing holds up nobody, it loses what there is no room to keep."""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable


class BackgroundWriter:
    """Writes to `fd` what `put` takes, in order. `on_failure` is told in the thread, once for failures in a row.

    No more than `most_bytes` go out at once, in whole lines. At most `most_waiting` pieces are kept.
    """

    def __init__(
        self,
        fd: int,
        *,
        most_waiting: int,
        most_bytes: int = sys.maxsize,
        on_failure: Callable[[OSError], None] = lambda error: None,
    ) -> None:
        self._fd = fd
        self._most_bytes = most_bytes
        self._on_failure = on_failure
        self._waiting: queue.Queue[bytes] = queue.Queue(most_waiting)
        threading.Thread(target=self._write_on, name=f"write to {fd}", daemon=True).start()

    def put(self, data: bytes) -> bool:
        """Have whole lines written; False when there is no room for them. Never waits."""
        try:
            self._waiting.put_nowait(data)
        except queue.Full:
            return False
        return True

    def drain(self, timeout_s: float) -> None:
        """Wait until all is written, so long at most."""
        end_s = time.monotonic() + timeout_s
        while self._waiting.unfinished_tasks and time.monotonic() < end_s:
            time.sleep(0.001)

    def _write_on(self) -> None:
        is_failing = False
        while True:
            data = self._waiting.get()
            try:
                self._write(data)
                is_failing = False
            except OSError as error:
                if not is_failing:
                    self._on_failure(error)
                is_failing = True
            self._waiting.task_done()

    def _write(self, data: bytes) -> None:
        while data:
            end = len(data) if len(data) <= self._most_bytes else data.rfind(b"\n", 0, self._most_bytes) + 1
            data = data[os.write(self._fd, data[: end or len(data)]) :]
