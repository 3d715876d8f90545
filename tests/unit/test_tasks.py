import asyncio
import logging

import pytest

from gateway.tasks import TaskSet, outcome_of


async def test_a_failure_is_logged_with_the_tasks_name(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("broken")

    tasks = TaskSet()
    task = tasks.start(fail(), "the worker")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert len(tasks) == 0
    assert any(record.levelno == logging.ERROR and "the worker" in record.getMessage() for record in caplog.records)


async def test_close_cancels_and_waits() -> None:
    tasks = TaskSet()
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    tasks.start(work(), "one")
    tasks.start(work(), "two")
    await asyncio.sleep(0)
    await tasks.close()
    assert ended == [True, True]
    assert len(tasks) == 0


async def test_a_failure_that_is_expected_is_a_value(caplog: pytest.LogCaptureFixture) -> None:
    async def work(fault: Exception | None) -> int:
        if fault is not None:
            raise fault
        return 5

    fault = ValueError("no")
    tasks = TaskSet()
    outcomes = [await tasks.start(outcome_of(work(one)), "work") for one in (None, fault)]
    assert outcomes == [5, fault]
    assert caplog.text == ""
