"""Rules about pictures and videos: a model that sees needs the files that say how pictures become numbers."""

from collections.abc import Iterator

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.findings import Finding, error, warning
from gateway.checkpoints.parts import TOWER

_FILE = "preprocessor_config.json"
_NEWER_FILE = "processor_config.json"
# Their processors want the settings for videos too, wherever those for pictures are.
_SEES_VIDEO = (
    "InternVLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration", "Qwen3VLForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration",
)  # fmt: skip
_VIDEO_FILE = "video_preprocessor_config.json"
_PART_FILE = f"{TOWER}/{_FILE}"
_MEND = "copy it from the base model, or save it with processor.save_pretrained"


def judge_processors(contents: Contents) -> Iterator[Finding]:
    """Findings about the processor files of a model that takes pictures."""
    if not contents.is_visual or contents.is_mistral or contents.folder.has(_FILE):
        return
    if contents.is_in_parts:
        yield from _judge_part(contents)
        return
    # Newer saves put the settings for pictures into processor_config.json.
    if any(finding.file == _NEWER_FILE for finding in contents.findings):
        return
    if "image_processor" in contents.processor:
        has_video = contents.folder.has(_VIDEO_FILE) or "video_processor" in contents.processor
        if not has_video and any(name in _SEES_VIDEO for name in contents.config.texts("architectures")):
            message = f"{_VIDEO_FILE} is missing, and {_NEWER_FILE} has no video_processor in it"
            yield error("processor-missing", _VIDEO_FILE, message, _MEND)
        return
    message = f"{_FILE} is missing, and the model takes pictures"
    if contents.folder.has(_NEWER_FILE):
        message = f"{_FILE} is missing, and {_NEWER_FILE} has no image_processor in it"
    # Code that the folder brings may do without.
    has_own_code = "auto_map" in contents.config
    yield (warning if has_own_code else error)("processor-missing", _FILE, message, _MEND)


def _judge_part(contents: Contents) -> Iterator[Finding]:
    if not contents.folder.has(_PART_FILE):
        message = f"{_PART_FILE} is missing, and the model takes pictures"
        yield error("processor-missing", _PART_FILE, message, "copy it from the published model")
