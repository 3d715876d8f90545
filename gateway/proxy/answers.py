"""What an answer says, in each of the protocols that are relayed. For answers that are looked at; clients' are not."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.proxy.body import Fields
from gateway.proxy.sse import read_events


@dataclass(frozen=True, slots=True)
class Said:
    """All that an answer says; `is_plain` if that is text alone, without calls of tools and reasoning."""

    text: str
    is_plain: bool


class _Part(msgspec.Struct):
    """Of an answer or a turn, or what is new of one: text, reasoning, or the call of a tool."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw()


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None


class _Output(msgspec.Struct):
    type: str = ""
    content: list[_Part] | None = None
    name: str | None = None
    arguments: str | None = None


class _Document(msgspec.Struct):
    """An answer, or an event of one: of chat and completions, of responses, of messages."""

    type: str = ""
    choices: list[_Choice] | None = None
    output: list[_Output] | None = None
    content: list[_Part] | None = None
    delta: str | _Part | None = None
    item: _Output | None = None
    content_block: _Part | None = None


class _Turn(msgspec.Struct):
    role: str = ""
    content: str | list[_Part] | None = None


_decode = msgspec.json.Decoder(_Document).decode
_decode_turns = msgspec.json.Decoder(str | list[_Turn]).decode
_TEXT_DELTA = "response.output_text.delta"
_OTHER_DELTAS = ("response.reasoning_text.delta", "response.function_call_arguments.delta")
_Pieces = Iterator[tuple[str, bool]]
"""What is said, and whether it is text."""


def read_answer(document: bytes, *, is_stream: bool) -> Said | None:
    """What an answer says, in its first choice; None where nothing can be read that is an answer."""
    documents = read_events(document) if is_stream else (document,)
    pieces = [piece for one in documents for piece in _read_pieces(one)]
    if not pieces:
        return None
    return Said("".join(text for text, _ in pieces), all(is_text for text, is_text in pieces if text))


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


def _read_pieces(data: bytes) -> _Pieces:
    try:
        document = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    for choice in document.choices or ():
        if choice.index == 0:
            yield from _read_choice(choice)
    for output in document.output or ():
        yield from _read_output(output)
    for part in document.content or ():
        yield from _read_part(part)
    if document.item is not None and document.item.name is not None:
        yield document.item.name, False
    if document.content_block is not None:
        yield from _read_part(document.content_block)
    if isinstance(document.delta, _Part):
        yield from _read_part(document.delta)
    elif document.delta is not None and document.type in (_TEXT_DELTA, *_OTHER_DELTAS):
        yield document.delta, document.type == _TEXT_DELTA


def _read_choice(choice: _Choice) -> _Pieces:
    if choice.text is not None:
        yield choice.text, True
    said = choice.message or choice.delta
    if said is not None:
        yield said.reasoning or said.reasoning_content or "", False
        yield _join(said.content), True
        for call in said.tool_calls or ():
            yield (call.function.name or "") + (call.function.arguments or ""), False


def _read_output(output: _Output) -> _Pieces:
    """Of the responses protocol: a message, reasoning, or the call of a tool."""
    yield (output.name or "") + (output.arguments or ""), False
    yield _join(output.content), output.type == "message"


def _read_part(part: _Part) -> _Pieces:
    """Of Anthropic's protocol. The input of a tool is an object here, and comes as text in a stream."""
    if part.text is not None:
        yield part.text, True
    called = (part.name or "") + (bytes(part.input).decode() if bytes(part.input) not in (b"", b"{}") else "")
    for said in (part.thinking, part.partial_json, called):
        if said:
            yield said, False


def _join(content: str | Iterable[_Part] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)
