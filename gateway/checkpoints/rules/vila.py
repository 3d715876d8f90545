"""Rules about the VILA family: which of its members are NVILA-Lite, and so served, and what these need."""

from collections.abc import Iterator

import msgspec

from gateway.checkpoints.architectures import PLUGGED
from gateway.checkpoints.contents import Contents
from gateway.checkpoints.fields import Fields
from gateway.checkpoints.findings import Finding, error, make_printable
from gateway.checkpoints.parts import FOLDS, LANGUAGE, MEDIA_TOKENS, PARTS, PROJECTOR, TOWER

_FILE = "config.json"
_OTHERS = "serve an NVILA-Lite checkpoint, or a model of another family"
_COPY = "copy the folder again as it was published"
_FLAGS = {"s2": "pictures in several scales (S2)", "dynamic_s2": "pictures in several scales (dynamic S2)",
          "ps3": "chosen regions of pictures (PS3)"}  # fmt: skip


def judge_vila(contents: Contents) -> Iterator[Finding]:
    """Findings about a checkpoint in parts, none about others."""
    config = contents.config
    if not contents.is_in_parts:
        if PLUGGED in config.texts("architectures"):
            message = f"{_FILE}: {PLUGGED} is served in parts only, and there is no llm_cfg for one"
            yield error("vila-kind", _FILE, message, "copy the checkpoint as it was published, with llm/ beside it")
        return
    if any(not config.section(f"{part}_cfg") for part in PARTS):
        return  # said already
    for reason in _list_reasons(config):
        message = f"{_FILE}: of the VILA family only NVILA-Lite is served, and this one has {reason}"
        yield error("vila-kind", _FILE, message, _OTHERS)
    yield from _judge_side(contents)
    yield from _judge_tokens(contents)
    yield from _judge_strays(contents)


def _list_reasons(config: Fields) -> Iterator[str]:
    """What makes the model another one than NVILA-Lite."""
    kinds = (
        (LANGUAGE, "model_type", ("qwen2",), "the language model"),
        (TOWER, "model_type", ("siglip_vision_model",), "the vision tower"),
        (PROJECTOR, "mm_projector_type", tuple(FOLDS), "the projector"),
    )
    for part, key, served, what in kinds:
        if (kind := config.section(f"{part}_cfg").text(key)) not in served:
            yield f"{what} {make_printable(kind or 'without a name')}"
    yield from (what for flag, what in _FLAGS.items() if config.flag(flag))
    way, feature = config.text("image_aspect_ratio"), config.text("mm_vision_select_feature")
    if way not in ("dynamic", "resize"):
        yield f"the way {make_printable(way or 'without a name')} of cutting pictures (image_aspect_ratio)"
    if feature != "cls_patch":
        yield f"mm_vision_select_feature {make_printable(feature or 'without a value')}"
    if config.number("fps"):
        yield "an fps of its own for videos"
    for kind in ("Image", "Video"):
        target = _read_encoder(config, f"{kind.lower()}_encoder").text("_target_")
        if target is not None and not target.endswith(f".Basic{kind}Encoder"):
            yield f"the encoder {make_printable(target)}"


def _read_encoder(config: Fields, key: str) -> Fields:
    """An encoder's settings: an object, or JSON within JSON."""
    text = config.text(key)
    if text is None:
        return config.section(key)
    try:
        return Fields(msgspec.json.decode(text, type=dict[str, object]))
    except (msgspec.DecodeError, RecursionError):
        return Fields({"_target_": text})


def _judge_side(contents: Contents) -> Iterator[Finding]:
    file = f"{TOWER}/preprocessor_config.json"
    size, tower = contents.preprocessor.section("size"), contents.config.section(f"{TOWER}_cfg").whole("image_size")
    sides = {size.whole("height"), size.whole("width")}
    if contents.preprocessor and sides != {tower}:
        message = f"{file} makes pictures of another size than the tower's image_size, {tower}"
        yield error("vila-pictures", file, message, _COPY)
    resample = contents.preprocessor.get("resample")
    if resample not in (None, 3):
        shown = make_printable(repr(resample), 40)
        message = f"{file}: resample is {shown}; pictures are resized bicubically (3), as in training"
        yield error("vila-pictures", file, message, _COPY)


def _judge_tokens(contents: Contents) -> Iterator[Finding]:
    tokenizer = contents.tokenizer
    lost = [token for token in MEDIA_TOKENS if token not in tokenizer.added]
    if tokenizer.trained_size is not None and lost:
        message = f"{tokenizer.file} has no token {' and none '.join(lost)}, which mark pictures and videos"
        yield error("vila-tokens", tokenizer.file, message, "copy the tokenizer of the published model")


def _judge_strays(contents: Contents) -> Iterator[Finding]:
    """The engine loads all weights that lie in the language model's folder, whatever its index says."""
    known = contents.weights.files
    for name in contents.folder.entries:
        if name.startswith(f"{LANGUAGE}/") and name.endswith(".safetensors") and name not in known:
            message = f"{make_printable(name)} is not named by the index, and the engine loads it all the same"
            yield error("vila-strays", name, message, "remove it, or copy the folder again as it was published")
