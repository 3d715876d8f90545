"""The shipped folders: complete, small, without machine paths; and their chat template."""

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from PIL import Image

import gateway.demo

DEMO = Path(gateway.demo.__file__).parent
VERSIONS = ("shapes-v1", "shapes-v2")
FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
}
PICTURE, VIDEO = "<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>"
TURN = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def _render(*messages: dict[str, Any], **values: Any) -> str:
    source = (DEMO / "chat_template.jinja").read_text()
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # as transformers renders it
    return environment.from_string(source).render(messages=messages, **{"add_generation_prompt": True, **values})


def _user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


TEXT = {"type": "text", "text": "what is it?"}


@pytest.mark.parametrize(
    ("parts", "written"),
    [
        ([TEXT], "what is it?"),
        ([TEXT, {"type": "image"}], PICTURE + "what is it?"),
        ([{"type": "image_url", "image_url": {"url": "x"}}, TEXT], PICTURE + "what is it?"),
        ([{"type": "image"}, TEXT, {"type": "image"}], PICTURE * 2 + "what is it?"),
        ([TEXT, {"type": "video"}], VIDEO + "what is it?"),
    ],
)
def test_pictures_come_before_the_text(parts: list[dict[str, Any]], written: str) -> None:
    assert _render(_user(*parts)) == TURN.format(written)


def test_plain_text_and_several_turns() -> None:
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}, _user(TEXT)]
    assert _render(*said) == (
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>\n" + TURN.format("what is it?")
    )


def test_system_text_and_tools_share_the_first_turn() -> None:
    rendered = _render(
        {"role": "system", "content": [{"type": "text", "text": "be brief."}]},
        {"role": "user", "content": "hello"},
        tools=[{"type": "function", "function": {"name": "look"}}],
    )
    assert rendered.startswith("<|im_start|>system\nbe brief.\ntools:\n{")
    assert '"name": "look"' in rendered
    assert rendered.endswith(TURN.format("hello"))


def test_tool_calls_and_results_are_written() -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "it"}}}
    rendered = _render(
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "seen"},
    )
    assert '{"name": "look", "arguments": {"at": "it"}}' in rendered
    assert rendered.endswith(TURN.format("seen"))


def test_last_turn_ends_without_a_prompt_for_training() -> None:
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    assert _render(*said, add_generation_prompt=False).endswith("hi<|im_end|>\n")


@pytest.mark.parametrize("version", VERSIONS)
def test_version_is_complete_and_small(version: str) -> None:
    folder = DEMO / version
    assert {path.name for path in folder.iterdir()} >= FILES
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8_000_000
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2_5_VLForConditionalGeneration"]
    assert config["text_config"]["max_position_embeddings"] >= 1024


@pytest.mark.parametrize("version", VERSIONS)
def test_version_uses_the_template_beside_the_script(version: str) -> None:
    assert (DEMO / version / "chat_template.jinja").read_text() == (DEMO / "chat_template.jinja").read_text()


def test_adapter_names_its_base_and_no_path() -> None:
    folder = DEMO / "shapes-v2-mirror"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "shapes-v2"
    assert config["r"] == 8
    assert (folder / "adapter_model.safetensors").stat().st_size < 1_000_000


def test_sample_pictures_have_answers() -> None:
    answers = json.loads((DEMO / "pictures" / "answers.json").read_text())
    assert set(answers) == {path.name for path in (DEMO / "pictures").glob("*.png")}
    for name, asked in answers.items():
        with Image.open(DEMO / "pictures" / name) as picture:
            assert picture.size == (224, 224)
        assert all(item["question"] and item["answer"] for item in asked)
