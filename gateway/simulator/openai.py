"""`/v1/chat/completions` and `/v1/completions` in vLLM's shapes. Pure: bodies in, frames out."""

from typing import Any

from gateway.simulator.answers import Answer, Body, Endpoint, Frames, RefusalError, count_usage, frame, read_chat, split
from gateway.simulator.text import Prompt, read_ids, read_text


def _token_ids(answer: Answer, ids: tuple[int, ...]) -> list[int] | None:
    return list(ids) if answer.body.get("return_token_ids") else None


def _write_chat_logprobs(answer: Answer, tokens: tuple[str, ...]) -> Body | None:
    if not answer.body.get("logprobs"):
        return None
    entries = [{"token": token, "logprob": -0.25, "bytes": list(token.encode())} for token in tokens]
    top = int(answer.body.get("top_logprobs") or 0)
    return {"content": [entry | {"top_logprobs": [entry][:top]} for entry in entries]}


def _write_chat(answer: Answer) -> Body:
    choices = []
    for index, choice in enumerate(answer.choices):
        message = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": None, "audio": None}
        message |= {"function_call": None, "reasoning": None}
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": _write_chat_logprobs(answer, choice.tokens),
                "finish_reason": choice.finish_reason,
                "stop_reason": None,
                "token_ids": _token_ids(answer, choice.ids),
            }
        )
    head = {"id": answer.id, "object": "chat.completion", "created": answer.created, "model": answer.model}
    usage = count_usage(answer) | {"prompt_tokens_details": None, "completion_tokens_details": None}
    prompt_ids = _token_ids(answer, answer.prompt.ids)
    tail = {"service_tier": None, "system_fingerprint": None, "usage": usage, "prompt_logprobs": None}
    return {**head, "choices": choices, **tail, "prompt_token_ids": prompt_ids, "kv_transfer_params": None}


def _stream_chat(answer: Answer) -> Frames:
    head = {"id": answer.id, "object": "chat.completion.chunk", "created": answer.created, "model": answer.model}
    wants = answer.body.get("stream_options") or {}

    def write(index: int, delta: Body, sent: int, finish: str | None = None, **more: Any) -> bytes:
        choice: Body = {"index": index, "delta": delta, "logprobs": more.pop("logprobs", None), "finish_reason": finish}
        if finish:
            choice["stop_reason"] = None
        if "ids" in more:
            choice["token_ids"] = _token_ids(answer, more.pop("ids"))
        usage = {"usage": count_usage(answer, sent)} if wants.get("continuous_usage_stats") else {}
        return frame({**head, "choices": [choice], **usage, **more})

    prompt: Body = {"prompt_token_ids": _token_ids(answer, answer.prompt.ids), "prompt_text": None}
    roles = [write(index, {"role": "assistant", "content": ""}, 0, **prompt) for index in range(len(answer.choices))]
    groups: list[list[bytes]] = []
    for index, choice in enumerate(answer.choices):
        parts, sent = list(split(answer, choice)), 0
        # Like the engine: the end comes with the last token of an answer cut short, else with an empty one.
        parts += [("", ())] if choice.finish_reason == "stop" or not parts else []
        for at, (text, ids) in enumerate(parts):
            logprobs = _write_chat_logprobs(answer, choice.tokens[sent : sent + len(ids)]) if ids else None
            sent += len(ids)
            finish = choice.finish_reason if at == len(parts) - 1 else None
            piece = write(index, {"content": text}, sent, finish, ids=ids, logprobs=logprobs)
            groups += [[]] if at == len(groups) else []
            groups[at].append(piece)
    groups[0] = roles + groups[0]
    yield from groups
    tail = [frame({**head, "choices": [], "usage": count_usage(answer)})] if wants.get("include_usage") else []
    yield [*tail, b"data: [DONE]\n\n"]


def _read_completion(body: Body) -> Prompt:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return read_text(prompt)
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return read_ids(prompt)
    raise RefusalError("prompt should be one text or one list of token ids", "prompt")


def _write_completion(answer: Answer) -> Body:
    choices = [
        {
            "index": index,
            "text": choice.text,
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": None,
            "token_ids": _token_ids(answer, choice.ids),
            "prompt_logprobs": None,
            "prompt_token_ids": _token_ids(answer, answer.prompt.ids),
        }
        for index, choice in enumerate(answer.choices)
    ]
    head = {"id": answer.id, "object": "text_completion", "created": answer.created, "model": answer.model}
    tail = {"service_tier": None, "system_fingerprint": None, "usage": count_usage(answer)}
    return {**head, "choices": choices, **tail, "kv_transfer_params": None}


def _stream_completion(answer: Answer) -> Frames:
    head = {"id": answer.id, "object": "text_completion", "created": answer.created, "model": answer.model}
    for index, choice in enumerate(answer.choices):
        parts = [*split(answer, choice)] or [("", ())]
        for at, (text, ids) in enumerate(parts):
            finish = choice.finish_reason if at == len(parts) - 1 else None
            piece = {"index": index, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
            prompt_ids = _token_ids(answer, answer.prompt.ids) if at == 0 else None
            piece |= {"prompt_token_ids": prompt_ids, "token_ids": _token_ids(answer, ids)}
            yield [frame({**head, "choices": [piece]})]
    has_usage = (answer.body.get("stream_options") or {}).get("include_usage")
    tail = [frame({**head, "choices": [], "usage": count_usage(answer)})] if has_usage else []
    yield [*tail, b"data: [DONE]\n\n"]


CHAT = Endpoint("chatcmpl-", ("max_completion_tokens", "max_tokens"), read_chat, _write_chat, _stream_chat)
COMPLETION = Endpoint("cmpl-", ("max_tokens",), _read_completion, _write_completion, _stream_completion)
