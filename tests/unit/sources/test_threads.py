import threading

import pytest

from gateway.sources.threads import start_thread


def test_what_comes_of_it_is_in_the_future() -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    assert start_thread(lambda: threading.current_thread().daemon, "one").result(5)
    with pytest.raises(KeyboardInterrupt):
        start_thread(fail, "two").result(5)


def test_work_goes_on_when_nobody_wants_its_result() -> None:
    going_on = threading.Event()
    future = start_thread(lambda: going_on.wait(5), "three")
    assert not future.cancel()
    going_on.set()
    assert future.result(5)
