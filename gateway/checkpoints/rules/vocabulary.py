"""Rules about the tokenizer and the chat template: present, and no token without its row of embeddings."""

from collections.abc import Iterator

from gateway.checkpoints.architectures import load_registry
from gateway.checkpoints.contents import Contents
from gateway.checkpoints.findings import Finding, error, join_names, warning
from gateway.checkpoints.manifest import find_task
from gateway.checkpoints.parts import LANGUAGE, MEDIA_TOKENS
from gateway.checkpoints.rules.shapes import find_embedding

_SPECIAL_KEYS = ("eos_token", "bos_token", "pad_token")
_TOKEN_KEYS = ("image_token_id", "image_token_index", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def judge_vocabulary(contents: Contents) -> Iterator[Finding]:
    """Findings about tokenizer and template beyond what reading them has shown."""
    if not contents.config:
        return
    yield from _judge_presence(contents)
    embedding = find_embedding(contents.weights.tensors)
    rows = contents.text.whole("vocab_size") if embedding is None else embedding.shape[0]
    if rows is not None and rows > 0:
        yield from _judge_trained(contents, rows)
        yield from _judge_added(contents, rows)
        yield from _judge_token_ids(contents, rows)


def _judge_presence(contents: Contents) -> Iterator[Finding]:
    place = f"{LANGUAGE}/" if contents.is_in_parts else ""
    if contents.tokenizer.kind is None:
        mend = "save it beside the model with tokenizer.save_pretrained, or copy it from the base model"
        message = f"{place}tokenizer.json is missing, and no other tokenizer is in the folder"
        yield error("tokenizer-missing", f"{place}tokenizer.json", message, mend)
    elif not contents.templates.is_present and not contents.templates.findings and not _has_own_template(contents):
        message = "chat_template.jinja is missing, and tokenizer_config.json has no template: chat requests will fail"
        mend = "copy the template that training used, or set engine_args {chat-template: FILE}"
        yield warning("template-missing", "chat_template.jinja", message, mend)


def _has_own_template(contents: Contents) -> bool:
    is_chatting = find_task(contents.config.texts("architectures")) != "pool"
    is_built_in = contents.config.text("model_type") in load_registry().own_templates
    return not is_chatting or is_built_in or contents.tokenizer.kind == "Mistral" or contents.is_mistral


def _judge_trained(contents: Contents, rows: int) -> Iterator[Finding]:
    trained = contents.tokenizer.trained_size
    if trained is not None and trained > rows:
        file = contents.tokenizer.file
        message = f"{file} has {trained:,} tokens, the model only {rows:,} rows of embeddings"
        yield error("tokenizer-misfit", file, message, "copy the tokenizer that this model was trained with")


def _judge_added(contents: Contents, rows: int) -> Iterator[Finding]:
    """Tokens without a row stop a request that uses them; those in the template would stop every chat."""
    # VILA's marks for pictures are never looked up, so they need no row.
    free = MEDIA_TOKENS if contents.is_in_parts else ()
    lost = [token for token, number in contents.tokenizer.added.items() if number >= rows and token not in free]
    if not lost or (contents.tokenizer.trained_size or 0) > rows:
        return
    file = contents.tokenizer.file
    template = contents.templates.texts[0][1] if contents.templates.texts else ""
    special = {contents.tokenizer.config.text(key) for key in _SPECIAL_KEYS}
    used = [token for token in lost if token in template or token in special]
    mend = "call resize_token_embeddings before training, or remove the tokens from the tokenizer"
    if used:
        message = f"{file}: {join_names(used)} needed by every chat, but the model has only {rows:,} rows of embeddings"
        yield error("tokenizer-misfit", file, message, mend)
    else:
        message = f"{file}: {join_names(lost)} has no row among the model's {rows:,} embeddings"
        yield warning("token-without-row", file, message, mend)


def _judge_token_ids(contents: Contents, rows: int) -> Iterator[Finding]:
    numbers = {key: number for key in _TOKEN_KEYS if (number := contents.config.whole(key)) is not None}
    beyond = [f"{key} {number:,}" for key, number in numbers.items() if number >= rows]
    if beyond:
        message = f"config.json: the model has {rows:,} rows of embeddings, too few for {join_names(beyond, 5)}"
        yield warning("token-without-row", "config.json", message, "copy the numbers from the tokenizer's files")
