"""Server-sent events on their way through: whole events, usage hidden from clients that did not ask, broken ends told.

Bytes that need no change are passed on as the very object that came in. Needles such as `"usage":` are searched in the
raw bytes: inside a JSON string their quotes would be escaped, so a hit is a key. Where each streamed token pays for it
they are searched by `find`: `in` asks first whether the needle is a number, and costs twice as much.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Annotated

import msgspec

from gateway.errors import GatewayError, UpstreamFailed
from gateway.proxy.endpoints import Endpoint

_MAX_EVENT_BYTES = 4 * 1024 * 1024
_USAGE_KEY = b'"usage":'
_FINISH_KEYS = (b'"finish_reason":"', b'"finish_reason": "')  # it is null until then
_ENDING_KEYS = (*_FINISH_KEYS, b'"stop_reason":', _USAGE_KEY)
_NO_CHOICES = re.compile(rb'"choices": ?\[\]')
_BLANK_LINES = (b"\n\n", b"\r\n\r\n")
# An engine's word is not taken for numbers that cannot be: sums of them would not fit into anything.
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=10**12)]


class Usage(msgspec.Struct):
    """Token counts as engines report them; the two naming habits of the field in one."""

    prompt_tokens: _Tokens = 0
    completion_tokens: _Tokens = 0
    input_tokens: _Tokens = 0
    output_tokens: _Tokens = 0

    @property
    def tokens_in(self) -> int:
        """Prompt tokens."""
        return self.prompt_tokens or self.input_tokens

    @property
    def tokens_out(self) -> int:
        """Generated tokens."""
        return self.completion_tokens or self.output_tokens


class _Said(msgspec.Struct):
    refusal: str | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None
    message: _Said | None = None


class _Details(msgspec.Struct):
    reason: str | None = None


class _Delta(msgspec.Struct):
    stop_reason: str | None = None


class _Response(msgspec.Struct):
    usage: Usage | None = None
    status: str | None = None
    incomplete_details: _Details | None = None


class _Envelope(msgspec.Struct):
    usage: Usage | None = None
    response: _Response | None = None
    message: _Response | None = None


class _Ending(msgspec.Struct):
    choices: list[_Choice] = []
    response: _Response | None = None
    status: str | None = None
    incomplete_details: _Details | None = None
    stop_reason: str | None = None
    delta: _Delta | None = None


class _Answer(_Ending):
    usage: Usage | None = None


_envelope_decoder = msgspec.json.Decoder(_Envelope)
_answer_decoder = msgspec.json.Decoder(_Answer)
_ending_decoder = msgspec.json.Decoder(_Ending)
_FINISHES = {
    "max_tokens": "length", "max_output_tokens": "length", "end_turn": "stop", "stop_sequence": "stop",
    "completed": "stop", "refusal": "content_filter", "tool_use": "tool_calls",
}  # fmt: skip
"""What the other protocols call it, in the words of OpenAI's chat completions."""


def read_usage(document: bytes) -> Usage | None:
    """The usage that a JSON answer (or one event's data) reports, if any."""
    try:
        envelope = _envelope_decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return _find_usage(envelope)


def _find_usage(envelope: _Envelope | _Answer) -> Usage | None:
    return envelope.usage or (envelope.response.usage if envelope.response else None)


def read_stream_usage(data: bytes) -> Usage | None:
    """The last usage that the events of a whole stream report."""
    found = None
    for document in read_events(data):
        if _USAGE_KEY in document:
            found = read_usage(document) or found
    return found


def read_prompt_tokens(document: bytes) -> int | None:
    """The prompt's tokens where the first event of a stream tells them, as that of Anthropic's protocol does."""
    try:
        message = _envelope_decoder.decode(document).message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return message.usage.tokens_in if message is not None and message.usage is not None else None


def read_end(document: bytes) -> tuple[Usage | None, str]:
    """Both `read_usage` and `read_finish`, at little more than the cost of one."""
    try:
        answer = _answer_decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return read_usage(document), read_finish(document)  # one of them may be readable
    return _find_usage(answer), _find_finish(answer)


def read_finish(document: bytes) -> str:
    """Why the answer in a JSON document (or one event's data) ended, in chat completions' words; "" if it has not.

    Of several choices the first counts; a `refusal` is a `content_filter`.
    """
    try:
        return _find_finish(_ending_decoder.decode(document))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _find_finish(ending: _Ending) -> str:
    if ending.choices:
        choice = ending.choices[0]
        if choice.index:
            return ""
        is_refusal = choice.message is not None and bool(choice.message.refusal)
        return "content_filter" if is_refusal else choice.finish_reason or ""
    answer = ending.response or ending
    details, delta = answer.incomplete_details, ending.delta
    told = (details and details.reason) or ending.stop_reason or (delta and delta.stop_reason) or answer.status or ""
    return _FINISHES.get(told, told if told in _FINISHES.values() else "")


class Renaming:
    """Puts the public name where the engine wrote its own; only the first `model` of a document is touched."""

    def __init__(self, engine_name: str, public_name: str) -> None:
        old, new = msgspec.json.encode(engine_name), msgspec.json.encode(public_name)
        self._pairs = tuple((b'"model":' + gap + old, b'"model":' + gap + new) for gap in (b"", b" "))

    def apply(self, document: bytes) -> bytes:
        """`document` with its first `model` renamed."""
        for old, new in self._pairs:
            if old in document:
                return document.replace(old, new, 1)
        return document


class EventStream:
    """One event stream being relayed. `feed` it what comes; it gives back what may go on to the client.

    `usage` holds the last usage seen, `prompt_tokens` what was said of the prompt before; `event_count` counts events,
    `has_ended` tells whether the stream's own last event has passed, `has_failed` whether one has said that the engine
    failed. Whole events with none of `stops` need not be fed, unless the stream `is_holding` the beginning of one.
    `finish` is why the answer ended, if the stream `notes_finish`.
    """

    def __init__(
        self, endpoint: Endpoint, *, hides_usage: bool, renaming: Renaming | None = None, notes_finish: bool = False
    ) -> None:
        self.usage: Usage | None = None
        self.finish = ""
        self.prompt_tokens: int | None = None
        self.has_ended = self.has_failed = False
        self.event_count = 0
        self._hints = tuple(dict.fromkeys(value for _, value in (*endpoint.last_events, *endpoint.failed_events)))
        self._notes_finish = notes_finish
        self.stops = (_USAGE_KEY, *self._hints, *(_FINISH_KEYS if notes_finish else ()))
        self._last_event, self._failed_event = _find_field(endpoint.last_events), _find_field(endpoint.failed_events)
        self._hides_usage = hides_usage
        self._renaming = renaming
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Take bytes cut anywhere; returns whole events, or b"" while one is incomplete.

        Raises UpstreamFailed when one event passes 4 MiB.
        """
        if self._held:
            # The blank line may itself be cut. Joining only once an event is whole keeps long events linear.
            if not _has_blank_line(self._tail + data):
                self._hold(data)
                return b""
            data = b"".join((*self._held, data))
            self._held.clear()
            self._held_bytes, self._tail = 0, b""
        if not data.endswith(_BLANK_LINES):
            end = _last_event_end(data)
            self._hold(data[end:])
            data = data[:end]
            if not data:
                return b""
        self.event_count += data.count(b"\n\n")
        if data.find(b"\r") >= 0:
            self.event_count += data.count(b"\r\n\r\n")
        if self._notes_finish and any(data.find(key) >= 0 for key in _ENDING_KEYS):
            self._note_finish(data)
        if self._renaming is not None or data.find(_USAGE_KEY) >= 0:
            data = b"".join(map(self._pass, _split_events(data)))
        for hint in self._hints:
            if data.find(hint) >= 0:
                self._note_end(data)
        return data

    @property
    def is_holding(self) -> bool:
        """True while an event is incomplete."""
        return bool(self._held)

    def flush(self) -> bytes:
        """What was held back when the stream ended: an event without its blank line, or nothing."""
        rest = b"".join(self._held)
        self._held.clear()
        self._note_end(rest)
        return rest

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._tail = (self._tail + data)[-3:]
        self._held_bytes += len(data)
        if self._held_bytes > _MAX_EVENT_BYTES:
            raise UpstreamFailed("The engine sent a single event of more than 4 MiB.")

    def _pass(self, event: bytes) -> bytes:
        if _USAGE_KEY in event:
            document = _event_data(event)
            self.usage = read_usage(document) or self.usage
            if self.usage is None:
                self.prompt_tokens = read_prompt_tokens(document)
            if self._hides_usage and _NO_CHOICES.search(event):
                return event[: len(event) - len(event.lstrip(b"\r\n"))]  # blank lines that came before it
        return event if self._renaming is None else self._renaming.apply(event)

    def _note_finish(self, events: bytes) -> None:
        for event in _split_events(events):
            self.finish = read_finish(_event_data(event)) or self.finish

    def _note_end(self, events: bytes) -> None:
        if self._last_event.search(events):
            self.has_ended = True
        if self._failed_event.search(events):
            self.has_failed = True


def read_events(data: bytes) -> Iterator[bytes]:
    """The documents of whole events, in their order."""
    for event in _split_events(data):
        if document := _event_data(event):
            yield document


def is_whole(stream: bytes, endpoint: Endpoint) -> bool:
    """True for a stream that has come to its end, and in which the engine does not say that it has failed."""
    ended, failed = (_find_field(fields).search(stream) for fields in (endpoint.last_events, endpoint.failed_events))
    return bool(ended) and not failed


def error_event(error: GatewayError, endpoint: Endpoint) -> bytes:
    """The bytes that end a broken stream, in the manner of its protocol."""
    if endpoint.error_style == "openai":
        return b"data: " + error.body() + b"\n\ndata: [DONE]\n\n"
    if endpoint.error_style == "anthropic":
        body = msgspec.json.encode({"type": "error", "error": {"type": "api_error", "message": error.message}})
    else:
        body = msgspec.json.encode({"type": "error", "code": error.code, "message": error.message, "param": None})
    return b"event: error\ndata: " + body + b"\n\n"


@cache
def _find_field(fields: tuple[tuple[bytes, bytes], ...]) -> re.Pattern[bytes]:
    """A pattern for lines with one of `fields`; the space behind the colon is the writer's choice."""
    return re.compile(b"|".join(rb"^%b: ?%b" % (name, re.escape(value)) for name, value in fields), re.MULTILINE)


def _has_blank_line(data: bytes) -> bool:
    return b"\n\n" in data or b"\r\n\r\n" in data


def _last_event_end(data: bytes) -> int:
    ends = (data.rfind(blank) + len(blank) if blank in data else 0 for blank in _BLANK_LINES)
    return max(ends)


def _split_events(data: bytes) -> list[bytes]:
    """Whole events with their blank lines; joined again they are `data`."""
    return [event for part in _cut_behind(b"\r\n\r\n", data) for event in _cut_behind(b"\n\n", part)]


def _cut_behind(blank: bytes, data: bytes) -> list[bytes]:
    *parts, rest = data.split(blank)
    return [part + blank for part in parts] + ([rest] if rest else [])


def _event_data(event: bytes) -> bytes:
    lines = (line.removeprefix(b"data:") for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(lines)
