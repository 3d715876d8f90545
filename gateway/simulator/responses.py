"""`/v1/responses` in vLLM's shapes. Pure: bodies in, frames out."""

from typing import Any

from gateway.simulator.answers import Answer, Body, Endpoint, Frames, event, require_list, split
from gateway.simulator.text import Prompt, read_messages


def _read_response(body: Body) -> Prompt:
    if isinstance(body.get("input"), str):
        return read_messages([{"role": "user", "content": body["input"]}])
    return read_messages(require_list(body, "input"))


def _write_response(answer: Answer, status: str = "completed", text: str | None = None) -> Body:
    is_whole = status != "in_progress"
    item = _write_item(answer, status, answer.choices[0].text if text is None else text)
    usage = {
        "input_tokens": answer.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }
    return {
        "id": answer.id,
        "created_at": answer.created,
        "incomplete_details": None,
        "instructions": answer.body.get("instructions"),
        "metadata": answer.body.get("metadata"),
        "model": answer.model,
        "object": "response",
        "output": [item] if is_whole else [],
        "parallel_tool_calls": True,
        "temperature": answer.body.get("temperature", 1.0),
        "tool_choice": "auto",
        "tools": [],
        "top_p": answer.body.get("top_p", 1.0),
        "background": False,
        "max_output_tokens": answer.body.get("max_output_tokens") or answer.completion_tokens,
        "service_tier": "auto",
        "status": status,
        "truncation": "disabled",
        "usage": usage if is_whole else None,
    }


def _write_item(answer: Answer, status: str, text: str) -> Body:
    content: list[Body] = [{"type": "output_text", "text": text, "annotations": [], "logprobs": None}]
    item_id = answer.id.replace("resp_", "msg_")
    is_whole = status != "in_progress"
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content if is_whole else [],
    }


def _stream_response(answer: Answer) -> Frames:
    sequence = iter(range(1 << 62))
    item, text = _write_item(answer, "in_progress", ""), answer.choices[0].text
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}

    def write(kind: str, **fields: Any) -> bytes:
        return event(f"response.{kind}", {**fields, "sequence_number": next(sequence), "type": f"response.{kind}"})

    group = [
        write("created", response=_write_response(answer, "in_progress")),
        write("in_progress", response=_write_response(answer, "in_progress")),
        write("output_item.added", item=item, output_index=0),
        write("content_part.added", part=part, **place),
    ]
    for delta, _ in split(answer, answer.choices[0]):
        yield [*group, write("output_text.delta", delta=delta, logprobs=[], **place)]
        group = []
    yield [
        *group,
        write("output_text.done", text=text, logprobs=[], **place),
        write("content_part.done", part=part | {"text": text}, **place),
        write("output_item.done", item=_write_item(answer, "completed", text), output_index=0),
        write("completed", response=_write_response(answer)),
    ]


RESPONSE = Endpoint("resp_", ("max_output_tokens",), _read_response, _write_response, _stream_response)
