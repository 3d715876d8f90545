"""From a request body to an answer: which model is asked, what is refused, how long the answer gets. Pure."""

import json
import time
import uuid
from typing import Any

from gateway.simulator.answers import Answer, Body, Endpoint, RefusalError
from gateway.simulator.options import Options
from gateway.simulator.text import answer


def read_body(content_type: str, raw: bytes) -> Body:
    """Parse a request body. Raises RefusalError."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise RefusalError("1 validation error: only application/json is supported", None, "Bad Request")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RefusalError(f"1 validation error: JSON decode error: {error}", "body", "Bad Request") from error
    if not isinstance(body, dict):
        raise RefusalError("1 validation error: the body should be an object", "body", "Bad Request")
    return body


def find_model(options: Options, body: Body) -> tuple[str, str]:
    """The name a reply carries, and the adapter asked for ("" for the model itself). Raises RefusalError."""
    asked = body.get("model")
    if asked is not None and not isinstance(asked, str):
        raise RefusalError("1 validation error: model should be a text", "body.model", "Bad Request")
    if asked in options.adapters:
        return asked, asked
    if asked is None or asked in options.names:
        return options.names[0], ""
    raise RefusalError(f"The model `{asked}` does not exist.", "model", "NotFoundError", 404)


def make_answer(options: Options, endpoint: Endpoint, body: Body, request_id: str | None) -> Answer:
    """The whole answer to `body`, made up at once; the server only times it. Raises RefusalError."""
    model, adapter = find_model(options, body)
    prompt = endpoint.read_prompt(body)
    limit = _read_limit(options, endpoint, body, len(prompt.ids))
    temperature = _read_number(body, "temperature", 0, float("inf"), 1.0)
    _read_number(body, "top_p", 1e-9, 1, 1.0)
    count = int(_read_number(body, "n", 1, 128, 1, is_whole=True))
    if count > 1 and temperature == 0:
        raise RefusalError("n must be 1 when using greedy sampling.", "n")
    seed = int(_read_number(body, "seed", -(2**63), 2**63 - 1, 0, is_whole=True)) if temperature else 0
    natural_end = limit if body.get("ignore_eos") else options.tokens
    stops = _read_stops(body)
    is_wrong = options.guessed_tokens and "wrong-guess" in options.faults
    salt = f"{'guessed/' if is_wrong else ''}{adapter}/{seed}"
    choices = tuple(answer(prompt, f"{salt}/{index}", limit, natural_end, stops) for index in range(count))
    answer_id = endpoint.id_prefix + (request_id or uuid.uuid4().hex)
    return Answer(answer_id, int(time.time()), model, prompt, choices, options.chunk_tokens, body)


def _read_limit(options: Options, endpoint: Endpoint, body: Body, prompt_tokens: int) -> int:
    room = options.max_model_len - prompt_tokens
    asked = next((key for key in endpoint.limit_keys if body.get(key) is not None), None)
    wanted = int(_read_number(body, asked, 1, float("inf"), 1, is_whole=True)) if asked else 1
    if room < wanted:
        message = f"This model's maximum context length is {options.max_model_len} tokens; "
        message += f"the prompt has {prompt_tokens} and {wanted} more were asked for."
        raise RefusalError(message, "input_tokens" if room < 1 else asked)
    return wanted if asked else room


def _read_number(body: Body, key: str, low: float, high: float, default: float, *, is_whole: bool = False) -> float:
    value: Any = body.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float):
        kind = "an integer" if is_whole else "a number"
        raise RefusalError(f"1 validation error: {key} should be {kind}", f"body.{key}", "Bad Request")
    if not low <= value <= high:
        raise RefusalError(f"{key} is out of range, got {value}.", key)
    return float(value) if not is_whole else value


def _read_stops(body: Body) -> tuple[str, ...]:
    stops = body.get("stop") or body.get("stop_sequences") or ()
    listed = [stops] if isinstance(stops, str) else stops
    if not isinstance(listed, list | tuple) or not all(isinstance(stop, str) and stop for stop in listed):
        raise RefusalError("1 validation error: stop should be a text or a list of texts", "body.stop", "Bad Request")
    return tuple(listed)
