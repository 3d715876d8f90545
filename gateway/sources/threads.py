"""Threads that the end of the program does not wait for: a store may keep them for as long as it is mute."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def start_thread(work: Callable[[], T], name: str) -> "Future[T]":
    """Do `work` in a thread of its own; what comes of it is in the future, which cannot be cancelled."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = work()
        except BaseException as fault:  # noqa: BLE001 - it is for whoever has the future
            future.set_exception(fault)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
