"""The request body: parsed once, top level only, so that megabytes of picture bytes never become Python objects.

Values stay raw JSON (`msgspec.Raw`, views into the body); only the few fields the gateway acts on are decoded.
"""

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from gateway.errors import BadRequest
from gateway.proxy.endpoints import Endpoint
from gateway.proxy.pictures import MEDIA_FIELD, PIXELS_FIELD, bound_pictures
from gateway.proxy.pieces import LARGE_BYTES, Piece
from gateway.traffic.routes import VersionRoute

Fields = dict[str, msgspec.Raw]

_decoder = msgspec.json.Decoder(Fields)
_text_decoder = msgspec.json.Decoder(str)
_TRUE, _FALSE, _NULL = b"true", b"false", b"null"


class _Turn(msgspec.Struct):
    role: str = ""


_turns_decoder = msgspec.json.Decoder(list[_Turn])


def parse_fields(data: bytes | bytearray) -> Fields:
    """The top-level fields of a JSON object. Raises BadRequest, saying where and what to do."""
    if not data or data.isspace():
        raise BadRequest('The request body is empty: send a JSON object such as {"model": "...", "messages": [...]}.')
    try:
        if not data.isascii():
            data.decode()
        return _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise BadRequest(f"The request body is not UTF-8 (byte {error.start}): send JSON encoded as UTF-8.") from error
    except msgspec.ValidationError as error:
        raise BadRequest("The request body must be a JSON object, like {...}, not another JSON value.") from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"The request body is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise refuse_depth() from error


def refuse_depth() -> BadRequest:
    """For what some reader finds too deep, even if another with more room on the stack has just read it."""
    return BadRequest("The request body is nested too deeply.")


def read_text(fields: Fields, name: str) -> str | None:
    """The string in field `name`; None where it is absent or null. Raises BadRequest for any other value."""
    raw = fields.get(name)
    if raw is None or _is(raw, _NULL):
        return None
    try:
        return _text_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The field {name!r} must be a string.", param=name) from error


def is_streaming(fields: Fields) -> bool:
    """True if the client asked for a stream."""
    return _is(fields.get("stream"), _TRUE)


def wants_usage(fields: Fields) -> bool:
    """True if the client of a stream asked to see usage."""
    raw = fields.get("stream_options")
    if raw is None:
        return False
    options = _read_object(raw)
    return options is not None and any(
        _is(options.get(key), _TRUE) for key in ("include_usage", "continuous_usage_stats")
    )


def is_greedy(fields: Fields, defaults: Mapping[str, bytes]) -> bool:
    """True if a request, filled in with a version's defaults, asks for the likeliest answer."""
    asked = dict(fields)
    if "do_sample" in asked:
        _apply_do_sample(asked, defaults)
    given = defaults.get("temperature", b"") if _is_absent(asked, "temperature") else bytes(asked["temperature"])
    return _is_zero(given)


def rewrite(fields: Fields, version: VersionRoute, endpoint: Endpoint, engine_name: str, size: int) -> list[Piece]:
    """The body the engine gets: its own model name, defaults where the client was silent, usage asked for.

    `size` is that of the client's body in bytes. The result comes in pieces, so that large values are passed on as they
    are. Takes `fields` over and changes it. Raises BadRequest for a `do_sample` that is no boolean, and for pictures
    beyond the version's bounds.
    """
    fields["model"] = _encode(engine_name)
    if endpoint.is_generation:
        if "do_sample" in fields:
            _apply_do_sample(fields, version.defaults)
        for name, value in version.defaults.items():
            if _is_absent(fields, name):
                fields[name] = msgspec.Raw(value)
    if version.pictures is not None and (PIXELS_FIELD in fields or MEDIA_FIELD in fields):
        bound_pictures(fields, version.pictures)
    if version.system_prompt is not None and endpoint.system_field is not None:
        _apply_system_prompt(fields, endpoint.system_field, version.system_prompt)
    if endpoint.can_report_usage and is_streaming(fields):
        _ask_for_usage(fields)
    return _join(fields) if size > LARGE_BYTES else [msgspec.json.encode(fields)]


def _join(fields: Fields) -> list[Piece]:
    """The fields as a JSON object, large values in pieces of their own: views into the client's body, not copies."""
    large = [(name, view) for name, raw in fields.items() if len(view := memoryview(raw)) > LARGE_BYTES]
    if not large:
        return [msgspec.json.encode(fields)]
    for name, _ in large:
        del fields[name]
    joint = msgspec.json.encode(fields)[:-1]
    pieces: list[Piece] = []
    for name, view in large:
        joint += (b"" if joint == b"{" else b",") + msgspec.json.encode(name) + b":"
        pieces += [joint, view]
        joint = b""
    return [*pieces, b"}"]


def _apply_do_sample(fields: Fields, defaults: Mapping[str, bytes]) -> None:
    """`do_sample` is a Hugging Face word that vLLM ignores: false means greedy, true overrules a greedy default."""
    raw = fields.pop("do_sample")
    if _is(raw, _NULL):
        return
    if _is(raw, _FALSE):
        fields["temperature"] = msgspec.Raw(b"0")
    elif not _is(raw, _TRUE):
        raise BadRequest("The field 'do_sample' must be true or false.", param="do_sample")
    elif _is_absent(fields, "temperature") and _is_zero(defaults.get("temperature", b"")):
        fields["temperature"] = msgspec.Raw(b"1")


def _apply_system_prompt(fields: Fields, field: str, prompt: str) -> None:
    if field != "messages":
        if _is_absent(fields, field):
            fields[field] = _encode(prompt)
        return
    raw = fields.get("messages")
    if raw is None:
        return
    try:
        turns = _turns_decoder.decode(raw)
    except msgspec.DecodeError:
        return  # not a list of messages: the engine says what is wrong with it
    except RecursionError as error:
        raise refuse_depth() from error
    if turns and not any(turn.role in ("system", "developer") for turn in turns):
        rest = bytes(raw).lstrip()[1:]
        fields["messages"] = msgspec.Raw(b'[{"role":"system","content":' + bytes(_encode(prompt)) + b"}," + rest)


def _ask_for_usage(fields: Fields) -> None:
    raw = fields.get("stream_options")
    if raw is None or _is(raw, _NULL):
        fields["stream_options"] = msgspec.Raw(b'{"include_usage":true}')
        return
    options = _read_object(raw)
    if options is not None:  # anything else is the client's mistake, and the engine says so
        options["include_usage"] = msgspec.Raw(_TRUE)
        fields["stream_options"] = msgspec.Raw(msgspec.json.encode(options))


def _read_object(raw: msgspec.Raw) -> Fields | None:
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    except RecursionError as error:
        raise refuse_depth() from error


@lru_cache  # the same few names and prompts with each request
def _encode(value: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _is_absent(fields: Fields, name: str) -> bool:
    """True where the client was silent; null says nothing either."""
    return name not in fields or _is(fields[name], _NULL)


def _is_zero(number: bytes) -> bool:
    try:
        return float(number) == 0
    except ValueError:
        return False


def _is(raw: msgspec.Raw | None, literal: bytes) -> bool:
    return raw is not None and len(memoryview(raw)) == len(literal) and bytes(raw) == literal
