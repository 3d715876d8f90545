import asyncio

import pytest

from gateway.processes.messages import AnyMessage, Ask, Reports
from gateway.processes.questions import Questions
from gateway.tasks import TaskSet
from tests.support.fake_engines import until


async def test_each_question_gets_its_own_answer() -> None:
    questions = Questions[Reports](5.0)
    sent: list[AnyMessage] = []
    tasks = TaskSet()
    asking = [tasks.start(questions.ask(sent.append, Ask), "ask") for _ in range(2)]
    await until(lambda: len(sent) == 2)
    numbers = [message.number for message in sent if isinstance(message, Ask)]
    for number in reversed(numbers):
        questions.take(number, Reports(number))
        questions.take(number, Reports(0))
    assert [(await one).number for one in asking] == numbers
    assert len(set(numbers)) == 2


async def test_nobody_waits_for_ever() -> None:
    with pytest.raises(TimeoutError):
        await Questions[Reports](0.01).ask(lambda message: None, Ask)


async def test_answers_that_nobody_waits_for_are_dropped() -> None:
    first, second = Questions[Reports](0.01), Questions[Reports](5.0)
    sent: list[AnyMessage] = []
    with pytest.raises(TimeoutError):
        await first.ask(sent.append, Ask)
    tasks = TaskSet()
    waiting = tasks.start(second.ask(sent.append, Ask), "ask")
    await until(lambda: len(sent) == 2)
    late, own = (message.number for message in sent if isinstance(message, Ask))
    for questions in (first, second):
        questions.take(late, Reports(late))
    await asyncio.sleep(0)
    assert not waiting.done(), "that was a predecessor's"
    second.take(own, Reports(own))
    assert (await waiting).number == own


async def test_when_nobody_is_there_any_more_what_is_open_ends() -> None:
    questions = Questions[str](60)
    asking = asyncio.ensure_future(questions.ask(lambda message: None, Ask))
    await asyncio.sleep(0)
    questions.give_up()
    with pytest.raises(TimeoutError):
        await asking
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(questions.ask(lambda message: None, Ask), 1)
