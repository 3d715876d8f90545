"""The made-up language: what a prompt counts as in tokens, and which words answer it. Pure and deterministic.

Token ids below 256 are the bytes of a text; the ids above stand for the words that answers are made of.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_VOCABULARY = """
a all and at blue both by circle clear corner count cube dark down each edge eight far field five four from front full
gold green grey half has here high in is it large left light line long low many middle near nine no not now of on one
open or orange other over picture pink plain point purple red right ring round seen seven shape side six small so some
square star still ten that the then there thin this three to top triangle two under up very was wave white wide with
yellow yes zero
"""
_WORDS = tuple(_VOCABULARY.split())
_FIRST_WORD = 256
PICTURE_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the engine sees it: its token ids, and a key that is the same for the same input."""

    ids: tuple[int, ...]
    key: bytes


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: its tokens as text, their ids, and why it ended."""

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    finish_reason: str

    @property
    def text(self) -> str:
        """The whole answer."""
        return "".join(self.tokens)


def read_text(text: str) -> Prompt:
    """The prompt of a plain text."""
    return Prompt(tuple(text.encode("utf-8", "replace")), text.encode("utf-8", "replace"))


def read_ids(ids: Iterable[int]) -> Prompt:
    """The prompt of token ids."""
    kept = tuple(ids)
    return Prompt(kept, write_text(kept).encode())


def read_messages(messages: list[dict[str, Any]]) -> Prompt:
    """The prompt of a conversation; every picture or video counts the same number of tokens."""
    ids: list[int] = []
    for message in messages:
        ids += f"{message.get('role')}: ".encode()
        content = message.get("content") or ""
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            text = part.get("text")
            ids += str(text).encode("utf-8", "replace") if text is not None else b"\0" * PICTURE_TOKENS
        ids += b"\n"
    return Prompt(tuple(ids), json.dumps(messages, sort_keys=True).encode())


def write_text(ids: Iterable[int]) -> str:
    """The text of token ids; unknown ids are left out."""
    parts = bytearray()
    for token in ids:
        if token < _FIRST_WORD:
            parts.append(token)
        elif token < _FIRST_WORD + len(_WORDS):
            parts += f" {_WORDS[token - _FIRST_WORD]}".encode()
    return parts.decode("utf-8", "replace")


def answer(prompt: Prompt, salt: str, limit: int, natural_end: int, stops: tuple[str, ...] = ()) -> Choice:
    """Up to `limit` words for `prompt`, the same for the same `salt`; an answer ends by itself at `natural_end`."""
    count = min(limit, natural_end)
    noise = hashlib.shake_256(salt.encode() + b"\0" + prompt.key).digest(2 * count)
    picks = [int.from_bytes(noise[at : at + 2]) % len(_WORDS) for at in range(0, len(noise), 2)]
    tokens = [_WORDS[pick] if at == 0 else f" {_WORDS[pick]}" for at, pick in enumerate(picks)]
    ids = tuple(_FIRST_WORD + pick for pick in picks)
    text = "".join(tokens)
    ends = [end for stop in stops if (end := text.find(stop)) >= 0]
    if ends:
        kept = _cut(tokens, min(ends))
        return Choice(kept, ids[: len(kept)], "stop")
    return Choice(tuple(tokens), ids, "stop" if limit > natural_end else "length")


def _cut(tokens: list[str], end: int) -> tuple[str, ...]:
    kept: list[str] = []
    for token in tokens:
        room = end - sum(map(len, kept))
        if room <= 0:
            break
        kept.append(token[:room])
    return tuple(kept)
