"""How likely an engine finds an answer: it reads question and answer as a prompt, and tells each token's probability.

That is what `prompt_logprobs` of vLLM gives. The answer's tokens are the last ones of the prompt, as many as the engine
makes of the answer alone. Versions whose engines cut it into other tokens cannot be compared so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.fleet.replica import Replica
from gateway.proxy.asking import ask
from gateway.proxy.body import Fields, rewrite
from gateway.proxy.call import RequestHead
from gateway.proxy.upstream import Upstream
from gateway.traffic.routes import VersionRoute
from gateway.traffic.shadow import Score

_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_PASSED_ON = (
    "mm_processor_kwargs", "media_io_kwargs", "chat_template_kwargs", "chat_template", "add_special_tokens",
    "documents", "tools", "reasoning_effort", "truncate_prompt_tokens",
)  # fmt: skip
"""What a request may say that changes how its prompt is written."""

_PART_OF_PROMPT = ("echo", "continue_final_message")
"""With these the answer is no turn of its own, or says the prompt again."""


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Probability(msgspec.Struct):
    logprob: float


_Logprobs = list[dict[str, _Probability] | None]


class _Choice(msgspec.Struct):
    prompt_logprobs: _Logprobs | None = None


class _Scored(msgspec.Struct):
    prompt_logprobs: _Logprobs | None = None
    choices: list[_Choice] = []


async def list_tokens(upstream: Upstream, replica: Replica, *texts: str) -> list[list[int] | None]:
    """The tokens that an engine makes of texts; None where it does not say."""
    found: list[list[int] | None] = []
    for text in texts:
        body = msgspec.json.encode({"model": replica.served_name, "prompt": text, "add_special_tokens": False})
        asked = await ask(upstream, replica, "/tokenize", [body], "shadow-tokenize")
        found.append(None if asked.is_failed else _decode_tokens(asked.document))
    return found


@dataclass(frozen=True, slots=True)
class Asking:
    """A version, and the engine of it that is asked."""

    version: VersionRoute
    replica: Replica


async def score(
    upstream: Upstream, primary: Asking, shadow: Asking, head: RequestHead, fields: Fields, text: str
) -> Score | None:
    """How likely both versions find `text` as an answer to a request; None where one of them does not say."""
    bodies = [_write_body(asking, head, fields, text) for asking in (primary, shadow)]
    if bodies[0] is None or bodies[1] is None:
        return None
    [tokens] = await list_tokens(upstream, primary.replica, text)
    if not tokens or [tokens] != await list_tokens(upstream, shadow.replica, text):
        return None
    by_primary = await _score_by(upstream, primary, head, bodies[0], tokens)
    by_shadow = None if by_primary is None else await _score_by(upstream, shadow, head, bodies[1], tokens)
    return None if by_primary is None or by_shadow is None else Score(by_primary, by_shadow)


async def _score_by(
    upstream: Upstream, asking: Asking, head: RequestHead, body: bytes, tokens: Sequence[int]
) -> float | None:
    asked = await ask(upstream, asking.replica, head.endpoint.path, [body], "shadow-score")
    return None if asked.is_failed else _read_score(asked.document, tokens)


def _write_body(asking: Asking, head: RequestHead, fields: Fields, text: str) -> bytes | None:
    """The request with its answer as a prompt; None where the answer cannot be read as part of one."""
    if any(bytes(fields.get(name, b"")) == b"true" for name in _PART_OF_PROMPT):
        return None
    prepared = dict(fields)
    rewrite(prepared, asking.version, head.endpoint, asking.replica.served_name, 0)
    body: dict[str, Any] = {name: prepared[name] for name in _PASSED_ON if name in prepared}
    body |= {"model": asking.replica.served_name, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    try:
        if head.endpoint.path == _CHAT:
            turns = msgspec.json.decode(prepared["messages"], type=list[msgspec.Raw])
            body |= {"messages": [*turns, {"role": "assistant", "content": text}]}
            body |= {"add_generation_prompt": False, "continue_final_message": True}
            if "tools" in body:
                body["tool_choice"] = "none"  # they stay in the prompt, and the one token that is made calls none
        elif head.endpoint.path == _COMPLETIONS:
            body["prompt"] = msgspec.json.decode(prepared["prompt"], type=str) + text
        else:
            return None
    except (KeyError, msgspec.DecodeError):
        return None
    return msgspec.json.encode(body)


def _decode_tokens(document: bytes) -> list[int] | None:
    try:
        return msgspec.json.decode(document, type=_Tokens).tokens
    except msgspec.DecodeError:
        return None


def _read_score(document: bytes, tokens: Sequence[int]) -> float | None:
    """The mean logarithm of the probability of the prompt's last tokens, if they are these."""
    try:
        scored = msgspec.json.decode(document, type=_Scored)
    except msgspec.DecodeError:
        return None
    told = scored.prompt_logprobs or (scored.choices[0].prompt_logprobs if scored.choices else None)
    if told is None or len(told) < len(tokens):
        return None
    total = 0.0
    for number, (token, entry) in enumerate(zip(tokens, told[-len(tokens) :], strict=True)):
        found = None if entry is None else entry.get(str(token))
        if found is None and entry and number == 0:
            found = next(iter(entry.values()))  # it may have grown together with what stands before it
        if found is None:
            return None
        total += found.logprob
    return total / len(tokens)
