"""The simulated engine behind the routes: how many requests run and wait, when tokens come, and what goes wrong.

The one writer of its counts.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.simulator.answers import Answer, Endpoint, RefusalError, encode
from gateway.simulator.http import Exchange
from gateway.simulator.options import Options

_ERROR_FRAMES = b'data: {"error": {"message": "simulated fault", "type": "InternalServerError", "code": 500}}\n\n'
_ERROR_FRAMES += b"data: [DONE]\n\n"
_BROKEN_FRAME = b'data: {"id":"broken\n\n'


class Engine:
    """Gives answers with the set timing and faults. `die` ends the process; tests put their own in."""

    def __init__(self, options: Options, die: Callable[[int], object] = os._exit) -> None:
        self._options = options
        self._die = die
        self._seats = asyncio.Semaphore(options.max_num_seqs)
        self._idle = asyncio.Event()
        self._idle.set()
        self._going = asyncio.Event()
        self._going.set()
        self._taken = 0
        self.is_draining = False
        self.running = 0
        self.waiting = 0
        self.totals = {"prompt_tokens": 0, "generation_tokens": 0, "finished": 0}
        self.drafts = {"drafts": 0, "draft_tokens": 0, "accepted_tokens": 0}

    async def give(self, endpoint: Endpoint, answer: Answer, exchange: Exchange) -> None:
        """Send one answer, whole or streamed, in its time. Raises RefusalError where it fails before it begins."""
        faults = self._options.faults
        order, self._taken = self._taken, self._taken + 1
        if self.is_draining:
            raise _fail("cannot schedule new futures after shutdown")
        if "no-token" in faults or order >= faults.get("error-500", order + 1):
            raise _fail("simulated fault: the engine has failed")
        async with self._seat():
            if order >= faults.get("hang", order + 1):
                await asyncio.Event().wait()
            is_last = order >= faults.get("die-after", order + 1)
            if answer.body.get("stream"):
                await self._stream(endpoint, answer, exchange, is_last)
            else:
                await self._send(endpoint, answer, exchange, is_last)
        self.totals["prompt_tokens"] += answer.prompt_tokens
        self.totals["generation_tokens"] += answer.completion_tokens
        self.totals["finished"] += 1
        self._count_guesses(answer.completion_tokens)

    def pause(self) -> None:
        """No token comes until `resume`: requests that are sent meanwhile hang, as vLLM's do while it sleeps."""
        self._going.clear()

    def resume(self) -> None:
        """Tokens come again."""
        self._going.set()

    async def drain(self) -> None:
        """Take nothing new and wait for what runs, up to the shutdown timeout; for ever if told to hang."""
        self.is_draining = True
        if "hang-on-sigterm" in self._options.faults and self.running:
            self._going.clear()
            await self._idle.wait()
            return
        try:
            async with asyncio.timeout(self._options.shutdown_timeout_s):
                await self._idle.wait()
        except TimeoutError:
            pass

    async def wait_idle(self) -> None:
        """Wait until nothing runs or waits."""
        await self._idle.wait()

    @asynccontextmanager
    async def _seat(self) -> AsyncIterator[None]:
        self._idle.clear()
        self.waiting += 1
        is_seated = False
        try:
            async with self._seats:
                self.waiting, self.running, is_seated = self.waiting - 1, self.running + 1, True
                yield
        finally:
            if is_seated:
                self.running -= 1
            else:
                self.waiting -= 1
            if not self.running and not self.waiting:
                self._idle.set()

    def _count_guesses(self, tokens: int) -> None:
        """Count as if each step had guessed some tokens, and the set fraction of them had been right."""
        width, rate = self._options.guessed_tokens, self._options.acceptance
        steps = round(tokens / (1 + width * rate)) if width else 0
        self.drafts["drafts"] += steps
        self.drafts["draft_tokens"] += steps * width
        self.drafts["accepted_tokens"] += round(steps * width * rate)

    async def _tick(self, time_s: float) -> None:
        if time_s:
            await asyncio.sleep(time_s)
        if not self._going.is_set():
            await self._going.wait()

    async def _send(self, endpoint: Endpoint, answer: Answer, exchange: Exchange, is_last: bool) -> None:
        tokens = max(len(choice.tokens) for choice in answer.choices)
        await self._tick(self._options.ttft_s + self._options.itl_s * max(0, tokens - 1))
        if is_last:
            self._die(0)
        await exchange.send(200, encode(endpoint.write_whole(answer)))

    async def _stream(self, endpoint: Endpoint, answer: Answer, exchange: Exchange, is_last: bool) -> None:
        groups = list(endpoint.write_stream(answer))
        cut_at = int(self._options.faults.get("cut-stream", 1 << 62))
        await exchange.begin_stream()
        for at, group in enumerate(groups):
            if at < len(groups) - 1 or at == 0:
                await self._tick(self._options.itl_s * self._options.chunk_tokens if at else self._options.ttft_s)
            if is_last and at == len(groups) // 2:
                self._die(0)
            if at == 1 and "bad-frame" in self._options.faults:
                await exchange.write(_BROKEN_FRAME)
            if at >= self._options.faults.get("error-event", len(groups)):
                await exchange.write(_ERROR_FRAMES)
                break
            for piece in group[:cut_at]:
                await exchange.write(piece)
            cut_at -= len(group)
            if cut_at <= 0:
                exchange.cut()
                return
        await exchange.end_stream()


def _fail(message: str) -> RefusalError:
    return RefusalError(message, None, "InternalServerError", 500)
