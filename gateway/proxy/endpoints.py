"""The engine routes that are relayed, and what is particular to each. Any other path is not relayed."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How one relayed route is treated.

    `system_field` is the request field a version's system prompt goes into. `can_report_usage`: the route has
    `stream_options`, so usage can be asked for. `last_events` are fields, name and value, that end a stream in order;
    `failed_events` how those begin by which an engine says that it has failed, `error_style` is the shape of ours.
    Versions are compared by what `is_judged`.
    """

    path: str
    is_generation: bool = True
    system_field: Literal["messages", "instructions", "system"] | None = None
    can_report_usage: bool = False
    last_events: tuple[tuple[bytes, bytes], ...] = ((b"data", b"[DONE]"),)
    failed_events: tuple[tuple[bytes, bytes], ...] = ((b"data", b'{"error"'),)
    error_style: Literal["openai", "responses", "anthropic"] = "openai"
    is_judged: bool = True


_RESPONSES_ENDS = (
    (b"event", b"response.completed"),
    (b"event", b"response.incomplete"),
    (b"event", b"response.failed"),
    (b"event", b"error"),
)
_RESPONSES_FAILURES = ((b"event", b"response.failed"), (b"event", b"error"))
_MESSAGES_FAILURES = ((b"event", b"error"),)
_MESSAGES_ENDS = ((b"event", b"message_stop"), (b"event", b"error"))
_ALL = (
    Endpoint("/v1/chat/completions", system_field="messages", can_report_usage=True),
    Endpoint("/v1/completions", can_report_usage=True),
    Endpoint(
        "/v1/responses",
        system_field="instructions",
        last_events=_RESPONSES_ENDS,
        failed_events=_RESPONSES_FAILURES,
        error_style="responses",
    ),
    Endpoint(
        "/v1/messages",
        system_field="system",
        last_events=_MESSAGES_ENDS,
        failed_events=_MESSAGES_FAILURES,
        error_style="anthropic",
    ),
    Endpoint(
        "/v1/messages/count_tokens",
        is_generation=False,
        system_field="system",
        error_style="anthropic",
        is_judged=False,
    ),
    Endpoint("/v1/embeddings", is_generation=False),
    Endpoint("/v1/chat/completions/render", system_field="messages", is_judged=False),
    Endpoint("/v1/completions/render", is_judged=False),
    Endpoint("/tokenize", is_generation=False, system_field="messages", is_judged=False),
    Endpoint("/detokenize", is_generation=False, is_judged=False),
)

ENDPOINTS = {endpoint.path: endpoint for endpoint in _ALL}
