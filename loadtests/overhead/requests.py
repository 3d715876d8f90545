"""What the client sends: whole HTTP requests, built once, the same for every router and the engine itself."""

import json
import random
from collections.abc import Iterator
from enum import StrEnum
from itertools import count, cycle
from typing import Any

from .answers import MODEL

SLOW_S = 0.2
PICTURE_BYTES = 10 * 2**20
_SESSIONS = 64
_SYSTEM = (
    "You are an assistant that looks at drawings of simple shapes. Name each shape with its colour and its place, from "
    "left to right, and say nothing about what you cannot see. Answer in plain sentences. If a question is not about "
    "the drawing, say so in one sentence. Never guess a colour."
)
_QUESTION = (
    "Here is a drawing with three shapes on a light ground. What stands furthest to the left, and is it higher or "
    "lower than the shape beside it?"
)
_REPLY = "Furthest to the left stands a red triangle. It is a little higher than the blue circle beside it."
_NEXT_QUESTION = "And the third one? Tell me its colour, and whether it touches the edge of the drawing anywhere."
_TURNS = (("system", _SYSTEM), ("user", _QUESTION), ("assistant", _REPLY), ("user", _NEXT_QUESTION))


class Wish(StrEnum):
    """What a request wants from the mock engine beyond a plain answer; stands in its last turn's text."""

    IDLE = "mock-idle"  # a stream that stops after its first event and stays open
    SLOW = "mock-slow"  # an answer after SLOW_S
    FAIL = "mock-fail"  # status 500
    CUT_BEFORE = "mock-cut-before"  # the connection closes without an answer
    CUT_WITHIN = "mock-cut-within"  # the connection closes in the middle of a stream


class Requests:
    """Writes requests that carry one key and a session id each, so that a split sends them both ways.

    Traced ones repeat no head: each has a traceparent of its own.
    """

    def __init__(self, key: str, seed: int, *, are_traced: bool = False) -> None:
        self._key = key
        self._are_traced = are_traced
        draw = random.Random(seed)
        self._sessions = [f"{draw.getrandbits(64):016x}" for _ in range(_SESSIONS)]

    def write(self, *, session: int = 0, wish: Wish | None = None, content: object = None, **fields: Any) -> bytes:
        """One chat request; `content` takes the place of the last turn's text, `wish` is put after that."""
        messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in _TURNS]
        if content is not None:
            messages[-1]["content"] = content
        if wish is not None:
            messages[-1]["content"] = f"{_NEXT_QUESTION} [{wish}]"
        body = json.dumps(
            {"model": MODEL, "messages": messages, "temperature": 0.2, "max_tokens": 200} | fields
        ).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: overhead\r\naccept: */*\r\n"
            f"authorization: Bearer {self._key}\r\nx-session-id: {self._sessions[session % _SESSIONS]}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def repeat(self, wish: Wish | None = None, **fields: Any) -> Iterator[bytes]:
        """The same request for ever, of one session after the other."""
        requests = cycle([self.write(session=session, wish=wish, **fields) for session in range(_SESSIONS)])
        return map(_trace, requests, count()) if self._are_traced else requests

    def write_picture(self) -> bytes:
        """A request whose body holds a picture of PICTURE_BYTES as base64 text."""
        block = random.Random(PICTURE_BYTES).randbytes(48 * 1024).hex()
        picture = (block * (PICTURE_BYTES // len(block) + 1))[:PICTURE_BYTES]
        parts = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
            {"type": "text", "text": "What stands furthest to the left?"},
        ]
        return self.write(content=parts)


def _trace(request: bytes, number: int) -> bytes:
    return request.replace(b"\r\naccept:", b"\r\ntraceparent: 00-%032x-00f067aa0ba902b7-01\r\naccept:" % number, 1)
