import pytest

from gateway.engines.failures import EngineFailed, as_failure


def test_a_failure_stays_what_it_is() -> None:
    failure = EngineFailed("out of memory", ["the last line"], is_final=True)
    assert as_failure(failure) is failure
    assert (failure.reason, failure.tail, failure.is_final) == ("out of memory", ("the last line",), True)


def test_what_nobody_foresaw_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    failure = as_failure(ZeroDivisionError("oh"))
    assert failure.reason == "the gateway could not keep it: ZeroDivisionError('oh')"
    assert not failure.is_final
    assert "something unforeseen" in caplog.text
