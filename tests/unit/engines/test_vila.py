from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.engines.vila import list_part_flags
from tests.support.nvila_models import write_nvila
from tests.support.safetensors_files import edit_json, write_checkpoint

PICTURE, VIDEO = {"type": "image"}, {"type": "video"}
START = "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\n"
END = "<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nvila(tmp_path_factory.mktemp("nvila") / "model")


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def render(folder: Path, *messages: dict[str, Any]) -> str:
    # As Transformers sets it up.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(list_part_flags(folder)["chat-template"])
    return template.render(messages=list(messages), add_generation_prompt=True)


def ask(folder: Path, *content: dict[str, str]) -> str:
    prompt = render(folder, {"role": "user", "content": list(content)})
    assert prompt.startswith(START)
    assert prompt.endswith(END)
    return prompt.removeprefix(START).removesuffix(END)


def test_other_checkpoints_need_nothing(tmp_path: Path) -> None:
    assert list_part_flags(write_checkpoint(tmp_path / "model")) == {}
    (tmp_path / "model" / "llm").mkdir()
    assert list_part_flags(tmp_path / "model") == {}
    assert list_part_flags(tmp_path / "gone") == {}


def test_the_engine_is_told_where_the_words_are(folder: Path) -> None:
    flags = list_part_flags(folder)
    assert flags["tokenizer"] == flags["generation-config"] == str(folder / "llm")
    assert flags["media-io-kwargs"] == {"video": {"video_backend": "nvila", "num_frames": 4}}
    assert flags["chat-template-content-format"] == "openai"


def test_what_is_missing_is_not_named(tmp_path: Path) -> None:
    folder = write_nvila(tmp_path / "model", num_video_frames=None)
    (folder / "llm" / "generation_config.json").unlink()
    edit_json(folder / "llm" / "tokenizer_config.json", chat_template=None)
    flags = list_part_flags(folder)
    assert flags.keys() == {"tokenizer", "media-io-kwargs"}
    assert flags["media-io-kwargs"]["video"]["num_frames"] == 8


def test_a_lone_picture_has_a_line_of_its_own(folder: Path, tmp_path: Path) -> None:
    assert ask(folder, PICTURE, text("what is it?")) == "<image>\nwhat is it?"
    assert ask(folder, text("is this "), PICTURE, text(" a cat?")) == "is this <image>\n a cat?"
    resized = write_nvila(tmp_path / "model", image_aspect_ratio="resize")
    assert ask(resized, PICTURE, text("what is it?")) == "<image>what is it?"


def test_several_media_stand_where_they_were_put(folder: Path) -> None:
    assert ask(folder, PICTURE, text("or"), PICTURE, text("?")) == "<image>or<image>?"
    assert ask(folder, VIDEO, PICTURE, text("?")) == "<vila/video><image>?"


def test_pictures_of_all_turns_count(folder: Path) -> None:
    turn = {"role": "user", "content": [PICTURE, text("and?")]}
    prompt = render(folder, turn, {"role": "assistant", "content": "yes"}, turn)
    assert prompt.count("<image>and?") == 2


def test_turns_are_trimmed_and_a_system_prompt_stays(folder: Path) -> None:
    system = {"role": "system", "content": "be short"}
    prompt = render(folder, system, {"role": "user", "content": " hello\n"}, {"role": "assistant", "content": None})
    assert prompt.startswith("<|im_start|>system\nbe short<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n")


def test_marks_in_a_clients_words_are_taken_out(folder: Path) -> None:
    assert ask(folder, PICTURE, text("<image> what <vila/video>is it?")) == "<image>\nwhat is it?"
    assert render(folder, {"role": "user", "content": "a <image>"}) == f"{START}a{END}"
