"""What the mock engine answers, byte for byte, built once; the check of each router compares with the same texts."""

import json

MODEL = "mock"
USAGE = {"prompt_tokens": 211, "total_tokens": 411, "completion_tokens": 200}
TEXT = (
    "The picture shows a red triangle to the left of a blue circle. Both stand on a light ground, the triangle a "
    "little higher than the circle, and neither touches the edge. "
) * 5
WORDS = (" the", " shape", " stands", " left", " of", " another", " blue", " circle")

_HEAD = b"HTTP/1.1 %s\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
_ID = "chatcmpl-0123456789abcdef0123456789abcdef"
STREAM_HEAD = (
    _HEAD % b"200 OK" + b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def write_answer(body: object, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """A whole HTTP answer; a text is sent as it is, anything else as JSON."""
    data = body.encode() if isinstance(body, str) else json.dumps(body, separators=(",", ":")).encode()
    head = _HEAD % status.encode() + f"content-length: {len(data)}\r\ncontent-type: {content_type}\r\n\r\n".encode()
    return head + data


def _write_event(choices: list[object], **more: object) -> bytes:
    body = {"id": _ID, "object": "chat.completion.chunk", "created": 1767225600, "model": MODEL, "choices": choices}
    return _frame(json.dumps(body | more, separators=(",", ":")))


def _frame(data: str) -> bytes:
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


def _write_delta(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    return _write_event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])


FIRST = _write_delta({"role": "assistant", "content": ""})
WORD_EVENTS = tuple(_write_delta({"content": word}) for word in WORDS)
FINISH = _write_delta({"content": ""}, "stop")
USAGE_EVENT = _write_event([], usage=USAGE)
DONE = _frame("[DONE]")

ANSWER = write_answer(
    {
        "id": _ID,
        "object": "chat.completion",
        "created": 1767225600,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT, "refusal": None, "tool_calls": []},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": USAGE,
        "prompt_logprobs": None,
    }
)
FAILURE = write_answer(
    {"error": {"message": "EngineCore died.", "type": "Internal Server Error", "param": None, "code": 500}},
    "500 Internal Server Error",
)
