"""What an engine must be told to serve a checkpoint in parts: where its words are, and how chats become VILA's prompts.

The plugin `gateway.nvila` is what serves it; vLLM finds that by itself.
"""

from pathlib import Path
from typing import Any

from gateway.checkpoints.contents import Contents, read_contents
from gateway.checkpoints.parts import LANGUAGE

_FEW_FRAMES = 8  # VILA's own number where config.json has none


def list_part_flags(checkpoint: Path) -> dict[str, Any]:
    """vLLM's flags for a checkpoint in parts, none for others."""
    if not (checkpoint / LANGUAGE).is_dir():
        return {}
    contents = read_contents(checkpoint)
    if not contents.is_in_parts:
        return {}
    words = str(contents.path / LANGUAGE)
    flags: dict[str, Any] = {"tokenizer": words}
    if contents.generation:
        flags["generation-config"] = words
    frames = contents.config.whole("num_video_frames") or _FEW_FRAMES
    # The plugin's own choice of frames, which is VILA's.
    flags["media-io-kwargs"] = {"video": {"video_backend": "nvila", "num_frames": frames}}
    if contents.templates.texts:
        flags["chat-template"] = write_template(contents)
        flags["chat-template-content-format"] = "openai"
    return flags


def write_template(contents: Contents) -> str:
    """The checkpoint's own chat template behind one that writes pictures and videos into the text, as VILA does.

    The published template takes texts only. vLLM would put all pictures before the text, with line breaks between them.
    """
    cuts_tiles = contents.config.text("image_aspect_ratio") == "dynamic"
    prelude = Path(__file__).with_name("vila_turns.jinja").read_text()
    return f"{{%- set cuts_tiles = {str(cuts_tiles).lower()} -%}}{prelude.rstrip()}{contents.templates.texts[0][1]}"
