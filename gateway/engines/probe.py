"""Asking an engine questions: is it alive, and does a real token come out. httpx, off the hot path."""

import asyncio
import base64
import contextlib
import mimetypes
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import httpx

from gateway.engines.engine import ProbeFailed, SmokePrompt
from gateway.telemetry.drafts import DraftCounts

_TIMEOUT = httpx.Timeout(10.0)
_SMOKE_TOKENS = 256
_FIRST_TOKENS = 4  # an engine that guesses ahead checks its first guesses after the first token
_DRAFT_COUNTERS = ("drafts", "draft_tokens", "accepted_tokens")
_TOKEN_TIMEOUT = httpx.Timeout(300.0)


class Probe:
    """Questions to one engine at `unix:///path/to.sock` or `http://host:port`.

    A look at its health takes at most `health_timeout_s`, however slowly an answer comes.
    """

    def __init__(self, address: str, served_name: str, *, health_timeout_s: float = 10.0) -> None:
        is_local = address.startswith("unix://")
        # Plain HTTP only. Reading the system's certificates would hold up the event loop for tens of milliseconds.
        transport = httpx.AsyncHTTPTransport(uds=address.removeprefix("unix://") if is_local else None, verify=False)
        base = "http://engine" if is_local else address
        self._client = httpx.AsyncClient(transport=transport, base_url=base, timeout=_TIMEOUT, trust_env=False)
        self._name = served_name
        self._health_timeout_s = health_timeout_s

    async def close(self) -> None:
        """Close the probe's connections."""
        await self._client.aclose()

    async def is_healthy(self) -> bool:
        """True if the engine says it is alive; a refused connection, a timeout or 503 says it is not."""
        try:
            async with asyncio.timeout(self._health_timeout_s):
                return (await self._client.get("/health")).status_code == 200
        except (httpx.HTTPError, TimeoutError):
            return False

    async def read_served_name(self) -> str:
        """What the engine calls its model, which is asked for by that name from now on. Raises ProbeFailed.

        Of several names it is the one known so far, if that is among them, else the first.
        """
        answer = await self._post_or_get("/v1/models")
        try:
            names = [str(card["id"]) for card in answer.json()["data"]]
            self._name = self._name if self._name in names else names[0]
        except (ValueError, LookupError, TypeError) as error:
            raise ProbeFailed("/v1/models names no model") from error
        return self._name

    async def read_max_model_len(self) -> int | None:
        """The context length the engine settled on, in tokens."""
        answer = await self._post_or_get("/v1/models")
        try:
            length = answer.json()["data"][0]["max_model_len"]
        except (ValueError, LookupError, TypeError):
            return None
        return length if isinstance(length, int) else None

    async def read_drafts(self) -> DraftCounts | None:
        """What the engine has counted of its guesses since it started; None if it counts none or does not say."""
        try:
            async with asyncio.timeout(self._health_timeout_s):
                text = (await self._client.get("/metrics")).text
        except (httpx.HTTPError, TimeoutError):
            return None
        found = [_sum_counter(text, f"vllm:spec_decode_num_{name}_total") for name in _DRAFT_COUNTERS]
        steps, guessed, accepted = found
        return None if steps is None or guessed is None or accepted is None else DraftCounts(steps, guessed, accepted)

    async def warm(
        self, *, is_visual: bool, adapters: tuple[str, ...] = (), smoke: tuple[SmokePrompt, ...] = ()
    ) -> None:
        """Make the engine produce a token, for each adapter too; and look at a picture if it should be able to.

        Raises ProbeFailed when no token comes out, or when a smoke prompt is not answered as expected.
        """
        for name in (self._name, *adapters):
            await self._complete(name)
        if is_visual:
            await self._look(self._name)
        for prompt in smoke:
            await self._smoke(prompt)

    async def fall_asleep(self) -> None:
        """Have vLLM give up its memory: weights go to the machine's own, the cache is forgotten. Raises ProbeFailed."""
        answer = await self._post_or_get("/sleep?level=1", {})
        if answer.status_code != 200:
            raise ProbeFailed(f"the engine does not sleep ({answer.status_code}: {_sentence(answer)})")

    async def wake_up(self) -> None:
        """Have an engine that sleeps answer again. Raises ProbeFailed."""
        answer = await self._post_or_get("/wake_up", {})
        if answer.status_code != 200:
            raise ProbeFailed(f"the engine does not wake up ({answer.status_code}: {_sentence(answer)})")

    async def load_adapter(self, name: str, folder: Path, smoke: tuple[SmokePrompt, ...] = ()) -> None:
        """Make the engine mount an adapter under a name that it has not got, and answer with it.

        Raises ProbeFailed, in the engine's words; then it is not mounted.
        """
        answer = await self._post_or_get("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        if answer.status_code != 200:
            raise ProbeFailed(f"the engine does not mount it ({answer.status_code}: {_sentence(answer)})")
        try:
            await self._complete(name)
            for prompt in smoke:
                await self._smoke(prompt)
        except ProbeFailed:
            with contextlib.suppress(ProbeFailed):
                await self.unload_adapter(name)
            raise

    async def unload_adapter(self, name: str) -> None:
        """Make the engine forget an adapter. Raises ProbeFailed."""
        answer = await self._post_or_get("/v1/unload_lora_adapter", {"lora_name": name})
        if answer.status_code != 200:
            raise ProbeFailed(f"the engine does not let go of {name} ({answer.status_code}: {_sentence(answer)})")

    async def _complete(self, name: str) -> None:
        question = {"model": name, "prompt": "Hello", "max_tokens": _FIRST_TOKENS, "temperature": 0}
        answer = await self._post_or_get("/v1/completions", question)
        if answer.status_code in (400, 404, 405, 501):  # not a generative model, or one without plain completions
            answer = await self._post_or_get("/v1/embeddings", {"model": name, "input": "Hello"})
        elif answer.status_code == 200 and not _has_token(answer):
            raise ProbeFailed(f"no token came out for {name}: {answer.text[:300]}")
        if answer.status_code != 200:
            raise ProbeFailed(f"the first request to {name} failed with {answer.status_code}: {_sentence(answer)}")

    async def _look(self, name: str) -> None:
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + _grey_png(56)}}
        messages = [{"role": "user", "content": [picture, {"type": "text", "text": "Hello"}]}]
        question = {"model": name, "messages": messages, "max_tokens": 1, "temperature": 0}
        answer = await self._post_or_get("/v1/chat/completions", question)
        if answer.status_code >= 500:
            raise ProbeFailed(f"the first picture failed with {answer.status_code}: {_sentence(answer)}")

    async def answer(self, asked: SmokePrompt, *, is_shown: bool) -> str:
        """The whole text that a question is answered with, greedily. Raises ProbeFailed.

        `is_shown`: with a grey square, if the question has no picture. Without a chat template the bare text is asked.
        """
        answer = await self._ask(asked, is_shown=is_shown)
        if answer.status_code == 400:
            plain = {"max_tokens": _SMOKE_TOKENS, **asked.fields, "temperature": 0}
            answer = await self._post_or_get("/v1/completions", plain | {"model": asked.name, "prompt": asked.prompt})
        if answer.status_code != 200:
            raise ProbeFailed(f"{asked.prompt[:100]!r} failed with {answer.status_code}: {_sentence(answer)}")
        return _read_text(answer)[0]

    async def _ask(self, asked: SmokePrompt, *, is_shown: bool = False) -> httpx.Response:
        content: list[dict[str, Any]] = [{"type": "text", "text": asked.prompt}]
        if is_shown and asked.image is None:
            content.insert(0, {"type": "image_url", "image_url": {"url": "data:image/png;base64," + _grey_png(56)}})
        if asked.image is not None:
            url = await asyncio.to_thread(_read_picture, asked.image)
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if asked.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": asked.system_prompt})
        question = {"max_tokens": _SMOKE_TOKENS, **asked.fields, "temperature": 0, "stream": False, "n": 1}
        question |= {"model": asked.name, "messages": messages}
        answer = await self._post_or_get("/v1/chat/completions", question)
        if answer.status_code == 400 and "max_tokens" not in asked.fields:  # too many for a short context
            del question["max_tokens"]
            answer = await self._post_or_get("/v1/chat/completions", question)
        return answer

    async def _smoke(self, asked: SmokePrompt) -> None:
        answer = await self._ask(asked)
        shown = f"the smoke prompt {asked.prompt[:100]!r}"
        if answer.status_code != 200:
            raise ProbeFailed(f"{shown} failed with {answer.status_code}: {_sentence(answer)}")
        text, is_whole = _read_text(answer)
        if asked.expected not in text:
            message = f"{shown} was answered {text[:200]!r}, and {asked.expected[:100]!r} was expected in it"
            raise ProbeFailed(message, is_final=is_whole)

    async def _post_or_get(self, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            if body is None:
                return await self._client.get(path)
            return await self._client.post(path, json=body, timeout=_TOKEN_TIMEOUT)
        except httpx.HTTPError as error:
            raise ProbeFailed(f"{path} got no answer ({type(error).__name__})") from error


def _sum_counter(text: str, name: str) -> int | None:
    """A counter in Prometheus' text, over all labels; an engine may be several."""
    values = re.findall(rf"^{re.escape(name)}(?:\{{[^\n]*\}})? (\d+(?:\.\d+)?(?:e[+]?\d+)?)$", text, re.MULTILINE)
    return int(sum(map(float, values))) if values else None


def _has_token(answer: httpx.Response) -> bool:
    try:
        return bool(answer.json()["usage"]["completion_tokens"])
    except (ValueError, LookupError, TypeError):
        return False


def _read_text(answer: httpx.Response) -> tuple[str, bool]:
    """The text of an answer, and whether that is all that the model would say."""
    try:
        choice = answer.json()["choices"][0]
        text = str((choice["message"]["content"] if "message" in choice else choice["text"]) or "")
        return text, bool(text) and choice.get("finish_reason") == "stop"
    except (ValueError, LookupError, TypeError):
        return "", False


def _read_picture(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ProbeFailed(f"the picture {path} of a smoke prompt cannot be read ({error.strerror})") from error
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def _sentence(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return answer.text[:300]


def _grey_png(side: int) -> str:
    """A grey square as base64 PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\x00" + b"\x80\x80\x80" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()
