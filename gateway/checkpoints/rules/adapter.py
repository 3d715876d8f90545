"""Rules about an adapter by itself: of a kind that the engine mounts over its base, and whole."""

from collections.abc import Iterator

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.findings import Finding, error, join_names, make_printable, note
from gateway.checkpoints.matrices import Matrices, read_matrices

_FILE = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_MERGE = "merge it into its base (gateway merge --base B --adapter A --out DIR) and serve the result as a version"
_MERGE_BY_PEFT = "merge it into its base (PEFT's merge_and_unload) and serve the result as a version"
_MERGED_HERE = ("use_dora", "lora_bias")
_MOST_RANK = 512
_TRAINED_WHOLE = "non_lora_trainables.bin"
_EMPTY_PICKLE_BYTES = 4096

PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica")
"""Ways to start an adapter that leave the base as it was; others change the base's own weights too."""
_UNMOUNTED = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA with a bias of its own",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "repeated layers",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA",
    "trainable_token_indices": "single trained tokens",
}


def judge_adapter(contents: Contents) -> Iterator[Finding]:
    """Findings about an adapter's configuration and matrices, its base left aside."""
    config = contents.adapter_config
    if not contents.folder.has(_FILE):
        mend = "save the adapter again with PEFT's save_pretrained"
        yield error("adapter-config", _FILE, f"{_FILE} is missing", mend)
    if not config:
        return
    yield from _judge_company(contents)
    kind = config.text("peft_type")
    if kind != "LORA":
        message = f"{_FILE}: peft_type is {make_printable(kind or 'missing')}; only LORA is mounted at run time"
        yield error("adapter-kind", _FILE, message, _MERGE_BY_PEFT)
        return
    found = list(_judge_config(config))
    yield from found
    # What is no matrix is there because of such a setting.
    if not contents.weights.is_whole or any(finding.code == "adapter-unmounted" for finding in found):
        return
    matrices = read_matrices(contents.weights)
    yield from _judge_names(matrices)
    if not config.section("rank_pattern"):
        yield from _judge_ranks(config, matrices)


def _judge_company(contents: Contents) -> Iterator[Finding]:
    """Trainers of the LLaVA family put what else they trained, the projector as a rule, into a pickle beside it."""
    if contents.folder.measure(_TRAINED_WHOLE) > _EMPTY_PICKLE_BYTES:
        message = f"{_TRAINED_WHOLE} holds layers that were trained whole, which are not mounted at run time"
        mend = "merge both into the base with the trainer's own tool, and serve the result as a version"
        yield error("adapter-beside", _TRAINED_WHOLE, message, mend)


def _judge_config(config: Fields) -> Iterator[Finding]:
    rank, alpha = config.whole("r"), config.number("lora_alpha")
    mend = "copy adapter_config.json from where the training wrote it"
    if rank is None or rank <= 0:
        yield error("adapter-config", _FILE, f"{_FILE}: r, the rank, is no positive number", mend)
    elif rank > _MOST_RANK:
        message = f"{_FILE}: rank {rank} is more than the engine mounts ({_MOST_RANK})"
        yield error("adapter-unmounted", _FILE, message, _MERGE)
    if alpha is None:
        yield error("adapter-config", _FILE, f"{_FILE}: lora_alpha is no number", mend)
    if "target_modules" not in config and "target_parameters" not in config:
        yield error("adapter-config", _FILE, f"{_FILE}: target_modules is missing", mend)
    for key, name in _UNMOUNTED.items():
        if config.get(key):
            mend = _MERGE if key in _MERGED_HERE else _MERGE_BY_PEFT
            yield error(
                "adapter-unmounted", _FILE, f"{_FILE}: {key} is set: {name} cannot be mounted at run time", mend
            )
    if (config.text("bias") or "none") != "none":
        yield error("adapter-unmounted", _FILE, f"{_FILE}: an adapter with biases is not mounted at run time", _MERGE)
    start = config.text("init_lora_weights")
    if start is not None and start.lower() not in PLAIN_STARTS:
        message = f"{_FILE}: init_lora_weights {make_printable(start)!r} changes the base's own weights too"
        mend = "convert it with PEFT's path_initial_model_for_weight_conversion, or merge it into its base"
        yield error("adapter-unmounted", _FILE, message, mend)
    saved = [name for name in config.texts("modules_to_save") if name not in ("classifier", "score")]
    if saved:
        message = f"{_FILE}: modules_to_save ({join_names(saved)}) are whole layers, which are not mounted at run time"
        yield error("adapter-unmounted", _FILE, message, _MERGE)


def _judge_names(matrices: Matrices) -> Iterator[Finding]:
    if matrices.embeddings:
        message = f"{_WEIGHTS} holds a copy of the base's embeddings ({join_names(matrices.embeddings, 1)})"
        yield note("adapter-embeddings", _WEIGHTS, message, "it is left unused; nothing to do")
    if matrices.others:
        message = f"{_WEIGHTS} holds tensors that are no LoRA matrices ({join_names(matrices.others, 2)})"
        yield error("adapter-unmounted", _WEIGHTS, message, _MERGE)
    halves = [name for name, pair in matrices.pairs.items() if pair.a is None or pair.b is None]
    if halves:
        message = f"{_WEIGHTS}: only one of the two matrices of {join_names(halves, 1)} is there"
        mend = "save the adapter again with PEFT's save_pretrained"
        yield error("adapter-damaged", _WEIGHTS, message, mend)
    if not matrices.pairs:
        mend = "save the adapter again with PEFT's save_pretrained"
        yield error("adapter-damaged", _WEIGHTS, f"{_WEIGHTS} holds no LoRA matrices", mend)


def _judge_ranks(config: Fields, matrices: Matrices) -> Iterator[Finding]:
    rank = config.whole("r")
    for name, pair in matrices.pairs.items():
        if rank is not None and rank > 0 and pair.rank is not None and pair.rank != rank:
            message = f"{_WEIGHTS}: {make_printable(name)} has rank {pair.rank}, {_FILE} says r = {rank}"
            mend = "copy adapter_config.json and the weights from the same save"
            yield error("adapter-damaged", _WEIGHTS, message, mend)
            return
