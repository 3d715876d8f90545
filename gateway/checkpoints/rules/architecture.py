"""Rules about config.json: an architecture the engine knows, and values that mean something."""

from collections.abc import Callable, Iterator

from gateway.checkpoints.architectures import PLUGGED, Registry, find_unserved, load_registry
from gateway.checkpoints.contents import Contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.findings import Finding, error, join_names, make_printable, note, warning
from gateway.checkpoints.manifest import CONTEXT_KEYS, find_quantization

_FILE = "config.json"
_COPY = "copy config.json from the base model, or save the model again with save_pretrained"
_TRUST = "read that code, and set engine_args {trust-remote-code: true} if you trust it"
_DTYPES = ("auto", "float16", "bfloat16", "float32", "float64", "half", "float", "double")
_SIZES = ("hidden_size", "num_hidden_layers", "vocab_size", *CONTEXT_KEYS)
_MOST_CONTEXT_TOKENS = 100_000_000
_LEAST_CONTEXT_TOKENS = 16

OwnCode = Callable[[str, str, str, str], Finding]
"""How grave it is that code of the folder's is needed."""


def judge_architecture(contents: Contents, *, trusts_code: bool = False) -> Iterator[Finding]:
    """Findings about config.json, none where it could not be read: that is said already.

    Code that the folder brings, and without which the model cannot be served, is an error unless the caller trusts it.
    """
    if not contents.config or contents.is_mistral:
        return
    registry = load_registry()
    own_code = warning if trusts_code else error
    yield from _judge_names(contents, registry, own_code)
    yield from _judge_model_type(contents.config, registry, own_code)
    if contents.tokenizer.kind == "own code":
        message = f"{contents.tokenizer.file}: the tokenizer is code that the folder brings"
        yield own_code("own-code", contents.tokenizer.file, message, _TRUST)
    yield from _judge_sizes(contents.text)
    yield from _judge_dtype(contents)


def _judge_names(contents: Contents, registry: Registry, own_code: OwnCode) -> Iterator[Finding]:
    config = contents.config
    names = config.texts("architectures")
    if not names:
        mend = 'add "architectures": ["…"] with the name of the model\'s class; the base model\'s config.json has it'
        message = f"{_FILE} names no architecture, so the engine guesses one from the model type"
        # For a language model it guesses well, for one with pictures a class that cannot answer.
        is_silent = not config.get("architectures")
        is_guessable = is_silent and config.text("model_type") in registry.model_types and not contents.is_visual
        yield (warning if is_guessable else error)("architecture-missing", _FILE, message, mend)
        return
    tasks = {registry.find_task(name) for name in names}
    family = find_unserved(names, config.text("model_type"))
    if family:
        mend = f"NVILA-Lite is served as {PLUGGED}, with llm/, vision_tower/ and mm_projector/ beside config.json"
        message = f"{_FILE}: {family} are not served by {registry.engine} ({join_names(names)})"
        yield error("architecture-unknown", _FILE, message, mend)
    elif tasks == {None}:
        yield _explain_unknown(config, names, registry, own_code)
    elif tasks <= {"draft", None}:
        message = f"{_FILE}: {join_names(names)} is a draft head, which answers nothing by itself"
        yield error("architecture-draft", _FILE, message, "name it under `speculative:` of the model it was made for")
    elif all(name in registry.by_transformers for name in names):
        message = f"{_FILE}: {registry.engine} has no code of its own for {join_names(names)}"
        yield warning("architecture-generic", _FILE, message, "it runs through Transformers, so expect it to be slower")


def _explain_unknown(config: Fields, names: tuple[str, ...], registry: Registry, own_code: OwnCode) -> Finding:
    message = f"{_FILE}: the architecture {join_names(names)} is not known to {registry.engine}"
    if "auto_map" in config:
        return own_code("own-code", _FILE, f"{message}, and the folder brings code for it", _TRUST)
    last = next((registry.removed[name] for name in names if name in registry.removed), None)
    if last:
        mend = f"vLLM had it up to release {last}; run that release and name it under `endpoints:`"
        return error("architecture-unknown", _FILE, message, mend)
    nearest = [near for name in names[:3] for near in registry.find_nearest(name)]
    mend = f"did you mean {', '.join(nearest[:3])}?" if nearest else "serve a model of an architecture that vLLM has"
    return error("architecture-unknown", _FILE, message, mend)


def _judge_model_type(config: Fields, registry: Registry, own_code: OwnCode) -> Iterator[Finding]:
    name = config.text("model_type")
    if registry.has_model_type(name) or find_unserved((), name):
        return
    is_known = any(registry.find_task(architecture) for architecture in config.texts("architectures"))
    if "auto_map" in config:
        if is_known:
            message = f"{_FILE}: the model type {make_printable(name or 'none')} is read by code that the folder brings"
            yield own_code("own-code", _FILE, message, _TRUST)
    elif name is None:
        mend = "copy model_type from the base model's config.json"
        yield error("model-type-missing", _FILE, f"{_FILE} names no model_type", mend)
    elif is_known:
        message = f"{_FILE}: the model_type {make_printable(name)!r} is not known to {registry.engine}"
        yield error("model-type-unknown", _FILE, message, "copy model_type from the base model's config.json")


def _judge_sizes(text: Fields) -> Iterator[Finding]:
    for key in _SIZES:
        value = text.whole(key)
        if key in text and (value is None or value <= 0):
            shown = make_printable(repr(text.get(key)), 40)
            message = f"{_FILE}: {key} is {shown}, which is no positive number"
            yield error("config-value", _FILE, message, _COPY)
    context = next((value for key in CONTEXT_KEYS if (value := text.whole(key)) is not None), None)
    if context is None or context <= 0:
        return
    mend = "set it to the longest context the model was trained for, or set engine_args {max-model-len: N}"
    if context > _MOST_CONTEXT_TOKENS:
        yield warning("context-odd", _FILE, f"{_FILE}: a context of {context:,} tokens is hardly meant", mend)
    elif context < _LEAST_CONTEXT_TOKENS:
        yield warning("context-odd", _FILE, f"{_FILE}: a context of {context} tokens holds hardly a prompt", mend)


def _judge_dtype(contents: Contents) -> Iterator[Finding]:
    for part in (contents.config, contents.text):
        for key in ("dtype", "torch_dtype"):
            value = part.text(key)
            if value is None or value.removeprefix("torch.") in _DTYPES:
                continue
            message = f"{_FILE}: {key} is {make_printable(repr(value), 40)}, which is no type of number"
            yield error("config-value", _FILE, message, 'set it to "bfloat16", "float16" or "float32"')
            return
    stored = contents.weights.count_by_dtype()
    packed = sum(size for dtype, (_, size) in stored.items() if dtype.startswith("F8") or dtype in ("I8", "U8", "F4"))
    if packed * 2 > contents.weights.size_bytes and find_quantization(contents) is None:
        message = f"{_FILE} has no quantization_config, but most weights are stored in 8 bits or less"
        yield warning("quantization-unsaid", _FILE, message, "copy quantization_config from where the model was packed")
    if "F64" in stored:
        message = f"{_FILE}: some weights are float64, which the engine loads as the smaller type it runs in"
        yield note("dtype-wide", _FILE, message)
