"""What an answer says, in each of the protocols that are relayed. For answers that are looked at; clients' are not."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gateway.proxy.body import Fields
from gateway.proxy.sse import read_events


class _Part(msgspec.Struct):
    text: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None


class _Output(msgspec.Struct):
    type: str = ""
    content: list[_Part] | None = None


class _Document(msgspec.Struct):
    """An answer, or an event of one: of chat and completions, of responses, of messages."""

    type: str = ""
    choices: list[_Choice] | None = None
    output: list[_Output] | None = None
    content: list[_Part] | None = None
    delta: str | _Part | None = None


class _Turn(msgspec.Struct):
    role: str = ""
    content: str | list[_Part] | None = None


_decode = msgspec.json.Decoder(_Document).decode
_decode_turns = msgspec.json.Decoder(str | list[_Turn]).decode
_TEXT_DELTAS = ("response.output_text.delta", "content_block_delta")


def read_text(document: bytes, *, is_stream: bool) -> str:
    """The text of an answer, of its first choice; what cannot be read says nothing."""
    documents = read_events(document) if is_stream else (document,)
    return "".join(piece for one in documents for piece in _read_pieces(one))


def read_question(fields: Fields) -> str:
    """What a request asks: the text of its last turn by a user, or its prompt; pictures are left out."""
    raw = fields.get("messages") or fields.get("input") or fields.get("prompt")
    if raw is None:
        return ""
    try:
        asked: Any = _decode_turns(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if isinstance(asked, str):
        return asked
    return next((_join(turn.content) for turn in reversed(asked) if turn.role == "user"), "")


def _read_pieces(data: bytes) -> Iterator[str]:
    try:
        document = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    for choice in document.choices or ():
        if choice.index == 0:
            said = choice.message or choice.delta
            yield choice.text or (_join(said.content) if said is not None else "")
    for output in document.output or ():
        if output.type == "message":
            yield _join(output.content)
    yield _join(document.content)
    if document.type in _TEXT_DELTAS and document.delta is not None:
        yield document.delta if isinstance(document.delta, str) else document.delta.text or ""


def _join(content: str | Iterable[_Part] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)
