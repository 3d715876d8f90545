"""Whether a router passes on what the mock engine says: looked at once, with the standard library's HTTP client, before
anything is measured.
"""

import http.client
import json
import time
from typing import Any

from .answers import TEXT, USAGE, WORDS
from .processes import Child
from .requests import Requests

_START_TIMEOUT_S = 120.0
_CHUNKS = 12
_SESSIONS = 16


class RouterFault(Exception):
    """A router did not start, or does not answer as it should."""


def wait_until_ready(port: int, requests: Requests, child: Child | None = None) -> None:
    """Ask until so many sessions in a row are answered that both engines must be in use.

    Raises RouterFault when the process ends or time runs out.
    """
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    fault = "no answer"
    while time.monotonic() < deadline_s:
        if child is not None and not child.is_alive:
            raise RouterFault(f"it ended at once:\n{child.read_log()}")
        try:
            fault = _find_fault(port, requests)
            if not fault:
                return
        except (OSError, http.client.HTTPException) as error:
            fault = repr(error)
        time.sleep(0.2)
    raise RouterFault(f"not ready after {_START_TIMEOUT_S:.0f} s: {fault}" + (f"\n{child.read_log()}" if child else ""))


def check_answers(port: int, requests: Requests) -> None:
    """Compare one full answer and two streams with what the engine sent. Raises RouterFault."""
    choices: tuple[dict[str, Any], ...] = ({}, {"stream_options": {"include_usage": True}})
    try:
        _check_full(json.loads(_exchange(port, requests.write())[1]))
        for options in choices:
            _, body = _exchange(port, requests.write(stream=True, max_tokens=_CHUNKS, **options))
            _check_stream(body.decode(), has_usage=bool(options))
    except (http.client.HTTPException, KeyError, IndexError, TypeError, ValueError) as error:
        raise RouterFault(f"an answer makes no sense: {error!r}") from error


def read_counts(port: int) -> dict[str, int]:
    """What the mock engine counted so far."""
    counts: dict[str, int] = json.loads(_exchange(port, b"GET /mock/counts HTTP/1.1\r\nhost: mock\r\n\r\n")[1])
    return counts


def _find_fault(port: int, requests: Requests) -> str:
    for session in range(_SESSIONS):
        status, body = _exchange(port, requests.write(session=session))
        if status != 200:
            return f"status {status}: {body[:300]!r}"
    return ""


def _check_full(answer: dict[str, Any]) -> None:
    if answer["choices"][0]["message"]["content"] != TEXT or answer["usage"]["total_tokens"] != USAGE["total_tokens"]:
        raise RouterFault(f"a full answer was changed: {answer}")


def _check_stream(body: str, *, has_usage: bool) -> None:
    events = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        raise RouterFault(f"a stream did not end with [DONE]: {body[-300:]!r}")
    chunks: list[dict[str, Any]] = [json.loads(event) for event in events[:-1]]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    if text != "".join(WORDS[place % len(WORDS)] for place in range(_CHUNKS)):
        raise RouterFault(f"a stream's text was changed: {text!r}")
    if has_usage and not any(chunk.get("usage") for chunk in chunks):
        raise RouterFault("a stream lost the usage that was asked for")


def _exchange(port: int, request: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.connect()
        connection.sock.sendall(request)
        response = http.client.HTTPResponse(connection.sock, method=request[: request.index(b" ")].decode())
        response.begin()
        return response.status, response.read()
    finally:
        connection.close()
