"""`/v1/messages`, the Anthropic way of asking, in vLLM's shapes. Pure: bodies in, frames out."""

from typing import Any

from gateway.simulator.answers import Answer, Body, Endpoint, Frames, event, read_chat, split


def _write_message(answer: Answer) -> Body:
    choice = answer.choices[0]
    return {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": choice.text}],
        "model": answer.model,
        "stop_reason": _STOP_REASONS[choice.finish_reason],
        "usage": {"input_tokens": answer.prompt_tokens, "output_tokens": answer.completion_tokens},
    }


_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


def _stream_message(answer: Answer) -> Frames:
    choice = answer.choices[0]
    usage = {"input_tokens": answer.prompt_tokens, "output_tokens": 0}
    message = _write_message(answer) | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}

    def write(kind: str, **fields: Any) -> bytes:
        return event(kind, {"type": kind, **fields})

    group = [
        write("message_start", message=message),
        write("content_block_start", content_block={"type": "text", "text": ""}, index=0),
    ]
    for delta, _ in split(answer, choice):
        yield [*group, write("content_block_delta", delta={"type": "text_delta", "text": delta}, index=0)]
        group = []
    stop = {"stop_reason": _STOP_REASONS[choice.finish_reason], "stop_sequence": None}
    yield [
        *group,
        write("content_block_stop", index=0),
        write("message_delta", delta=stop, usage=usage | {"output_tokens": answer.completion_tokens}),
        write("message_stop"),
    ]


MESSAGE = Endpoint("chatcmpl-", ("max_tokens",), read_chat, _write_message, _stream_message)
