import asyncio
from collections.abc import Sequence

import pytest

from gateway.control import gathering as module
from gateway.control.gathering import Gathering


class Oracle:
    """Answers with the question's double, once it may; `asked` are the calls."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.may_answer = asyncio.Event()
        self.fault: Exception | None = None

    async def answer(self, questions: Sequence[int]) -> list[int]:
        self.asked.append(list(questions))
        await self.may_answer.wait()
        if self.fault is not None:
            raise self.fault
        return [2 * question for question in questions]


async def test_who_comes_while_one_is_under_way_goes_along_with_the_next() -> None:
    oracle = Oracle()
    gathering = Gathering[int, int](oracle.answer)
    asking = [asyncio.ensure_future(gathering.ask(number)) for number in range(5)]
    await asyncio.sleep(0)
    oracle.may_answer.set()
    assert await asyncio.gather(*asking) == [0, 2, 4, 6, 8]
    assert oracle.asked in ([[0], [1, 2, 3, 4]], [[0, 1, 2, 3, 4]])


async def test_not_too_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_AT_ONCE", 2)
    oracle = Oracle()
    gathering = Gathering[int, int](oracle.answer)
    asking = [asyncio.ensure_future(gathering.ask(number)) for number in range(5)]
    await asyncio.sleep(0.01)
    oracle.may_answer.set()
    assert await asyncio.gather(*asking) == [0, 2, 4, 6, 8]
    assert max(map(len, oracle.asked)) == 2


async def test_a_failure_is_everybodys_who_went_along_and_nobody_elses() -> None:
    oracle = Oracle()
    oracle.may_answer.set()
    oracle.fault = ValueError("no")
    gathering = Gathering[int, int](oracle.answer)
    found = await asyncio.gather(*(gathering.ask(number) for number in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [ValueError] * 3
    oracle.fault = None
    assert await gathering.ask(7) == 14


async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    oracle = Oracle()
    gathering = Gathering[int, int](oracle.answer)
    first, second, third = [asyncio.ensure_future(gathering.ask(number)) for number in range(3)]
    await asyncio.sleep(0)
    second.cancel()
    oracle.may_answer.set()
    assert await asyncio.gather(first, third) == [0, 4]
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_one_who_leaves_while_he_asks_for_others_leaves_them_an_end() -> None:
    oracle = Oracle()
    gathering = Gathering[int, int](oracle.answer)
    first, second = [asyncio.ensure_future(gathering.ask(number)) for number in range(2)]
    await asyncio.sleep(0.01)
    first.cancel()
    oracle.may_answer.set()
    found = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert isinstance(found[1], ConnectionError) or found[1] == 2
