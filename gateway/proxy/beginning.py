"""The beginning of a conversation: what all its turns share, as a key for the choice of a replica.

An engine's prefix cache serves a request whose beginning it has seen. So the key is made of what comes before the first
answer: the system prompt and the first question, or, where the question shows pictures, the pictures alone, since other
questions about the same pictures profit too.
"""

import hashlib
from typing import Any

import msgspec

from gateway.proxy.body import Fields, refuse_depth

_SAMPLE_BYTES = 16 * 1024
_TEXT = ("text", "input_text", "output_text")


class _Turn(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Part(msgspec.Struct):
    type: str = ""


_turns_decoder = msgspec.json.Decoder(list[_Turn])
_parts_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_part_decoder = msgspec.json.Decoder(_Part)


def read_beginning(fields: Fields) -> bytes:
    """The key, 16 bytes; b"" where the request has neither messages nor input nor prompt.

    Raises BadRequest for what is nested too deeply.
    """
    raw = fields.get("messages") or fields.get("input") or fields.get("prompt")
    if raw is None:
        return b""
    digest = hashlib.blake2b(digest_size=16)
    turns = _decode(_turns_decoder, raw)
    if turns is None:  # a prompt of text, or what the engine will refuse
        digest.update(memoryview(raw)[:_SAMPLE_BYTES])
        return digest.digest()
    for turn in turns:
        if turn.role == "assistant":
            break
        for part in _read_pictures(turn.content) or [turn.content]:
            view = memoryview(part)
            # Pictures are megabytes: length, beginning and end tell them apart.
            digest.update(b"%d:" % len(view))
            digest.update(view[:_SAMPLE_BYTES])
            digest.update(view[-_SAMPLE_BYTES:])
    return digest.digest()


def _read_pictures(content: msgspec.Raw) -> list[msgspec.Raw]:
    """The parts of a turn that are no text."""
    return [
        part
        for part in _decode(_parts_decoder, content) or []
        if (kind := _decode(_part_decoder, part)) is not None and kind.type not in _TEXT
    ]


def _decode(decoder: "msgspec.json.Decoder[Any]", raw: msgspec.Raw) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    except RecursionError as error:
        raise refuse_depth() from error
