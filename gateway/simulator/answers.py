"""What every generating endpoint shares: the answer to write down, refusals, and how frames are framed. Pure."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gateway.simulator.text import Choice, Prompt, read_messages

Body = dict[str, Any]
Frames = Iterator[list[bytes]]
"""A stream: groups of frames, one group to send at a time, a token's time apart; the last follows at once."""


class RefusalError(Exception):
    """A request that vLLM would refuse, as its error object has it."""

    def __init__(self, message: str, param: str | None = None, kind: str = "BadRequestError", code: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.kind, self.code = message, param, kind, code


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything an endpoint needs to write an answer down."""

    id: str
    created: int
    model: str
    prompt: Prompt
    choices: tuple[Choice, ...]
    chunk_tokens: int
    body: Body

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt.ids)

    @property
    def completion_tokens(self) -> int:
        return sum(len(choice.tokens) for choice in self.choices)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One generating route."""

    id_prefix: str
    limit_keys: tuple[str, ...]
    read_prompt: Callable[[Body], Prompt]
    write_whole: Callable[[Answer], Body]
    write_stream: Callable[[Answer], Frames]


def encode(value: Any) -> bytes:
    """JSON as vLLM's server writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def frame(value: Any) -> bytes:
    return b"data: " + encode(value) + b"\n\n"


def event(kind: str, value: Body) -> bytes:
    return f"event: {kind}\n".encode() + frame(value)


def count_usage(answer: Answer, completion_tokens: int | None = None) -> Body:
    completion = answer.completion_tokens if completion_tokens is None else completion_tokens
    total = answer.prompt_tokens + completion
    return {"prompt_tokens": answer.prompt_tokens, "total_tokens": total, "completion_tokens": completion}


def split(answer: Answer, choice: Choice) -> Iterator[tuple[str, tuple[int, ...]]]:
    for at in range(0, len(choice.tokens), answer.chunk_tokens):
        part = slice(at, at + answer.chunk_tokens)
        yield "".join(choice.tokens[part]), choice.ids[part]


def require_list(body: Body, key: str) -> list[Any]:
    value = body.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RefusalError(f"1 validation error: {key}: a list of objects is required", f"body.{key}", "Bad Request")
    if not value:
        raise RefusalError(f"{key} must not be empty", key)
    return value


def read_chat(body: Body) -> Prompt:
    """The prompt of a body with `messages`, as in chat, Anthropic messages and tokenize."""
    messages: list[Body] = require_list(body, "messages")
    for message in messages:
        content = message.get("content")
        is_content = content is None or isinstance(content, str)
        is_parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
        if not isinstance(message.get("role"), str) or not (is_content or is_parts):
            raise RefusalError(
                "1 validation error: messages: role and content are required", "body.messages", "Bad Request"
            )
    system = body.get("system")
    return read_messages([{"role": "system", "content": system}, *messages] if system else messages)
