"""Calls that many make at once, made as few: whoever comes while one is under way goes along with the next."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Given = TypeVar("Given")

_MOST_AT_ONCE = 500


class Gathering(Generic[Asked, Given]):
    """Gathers single questions for `ask_all`, which answers many, in their order, or fails for all of them."""

    def __init__(self, ask_all: Callable[[Sequence[Asked]], Awaitable[Sequence[Given]]]) -> None:
        self._ask_all = ask_all
        self._waiting: list[tuple[Asked, asyncio.Future[Given]]] = []
        self._lock = asyncio.Lock()

    async def ask(self, asked: Asked) -> Given:
        """The answer to one question. Raises what `ask_all` does."""
        given: asyncio.Future[Given] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, given))
        async with self._lock:
            if not given.done():  # else somebody before it has taken it along
                await self._ask_some()
        return await given

    async def _ask_some(self) -> None:
        some, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
        try:
            answers = await self._ask_all([asked for asked, _ in some])
        except BaseException as error:
            for _, given in some:
                if not given.done():
                    given.set_exception(error if isinstance(error, Exception) else ConnectionError("given up"))
                    given.exception()  # who has gone meanwhile does not ask for it
            if not isinstance(error, Exception):
                raise
            return
        for (_, given), answer in zip(some, answers, strict=True):
            if not given.done():
                given.set_result(answer)
