from pathlib import Path

import pytest

from gateway.checkpoints.architectures import load_registry
from gateway.checkpoints.contents import read_contents
from gateway.checkpoints.findings import Finding
from gateway.checkpoints.rules.thinking import PARSERS, judge_thinking
from tests.support.safetensors_files import TEMPLATE, edit_json, write_checkpoint

SWITCHED = TEMPLATE + "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
SET = "{% if not thinking is defined %}{% set thinking = false %}{% endif %}" + TEMPLATE
UNSWITCHED = TEMPLATE + "<think>\n"


def judge(folder: Path, template: str, model_type: str = "llama") -> list[Finding]:
    write_checkpoint(folder)
    (folder / "chat_template.jinja").write_text(template)
    edit_json(folder / "config.json", model_type=model_type)
    return list(judge_thinking(read_contents(folder)))


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE + "{# enable_thinking #} enable_thinking", "{% if", ""])
def test_a_model_that_does_not_think(tmp_path: Path, template: str) -> None:
    assert judge(tmp_path, template) == []


@pytest.mark.parametrize(
    ("template", "model_type", "switch", "parser"),
    [
        (SWITCHED, "qwen3", "enable_thinking", "qwen3"),
        (SWITCHED, "qwen3_vl", "enable_thinking", "qwen3"),
        (SWITCHED, "glm4_moe", "enable_thinking", "glm45"),
        (SWITCHED, "llama", "enable_thinking", "qwen3"),
        (SET, "granite", "thinking", "granite"),
        (SET, "deepseek_v3", "thinking", "deepseek_v3"),
        (SET, "llama", "thinking", "NAME"),
        (UNSWITCHED, "deepseek_v3", None, "deepseek_r1"),
        (UNSWITCHED, "qwen2", None, "deepseek_r1"),
    ],
)
def test_the_switch_and_the_parser_are_told(
    tmp_path: Path, template: str, model_type: str, switch: str | None, parser: str
) -> None:
    (finding,) = judge(tmp_path, template, model_type)
    assert (finding.severity, finding.code) == ("note", "template-thinks")
    assert f"set reasoning: {{parser: {parser}}}" in finding.mend
    assert ("no switch" in finding.message) == (switch is None)
    if switch is not None:
        assert f"{{{switch}: …}}" in finding.message
        assert f"defaults: {{chat_template_kwargs: {{{switch}: false}}}}" in finding.mend


def test_a_switch_of_several_ways_is_not_said_to_be_on_or_off(tmp_path: Path) -> None:
    (finding,) = judge(tmp_path, TEMPLATE + "{{ reasoning_effort }}", "gpt_oss")
    assert "{parser: openai_gptoss}" in finding.mend
    assert "defaults" not in finding.mend


def test_every_parser_is_one_of_the_engine_release() -> None:
    assert set(PARSERS.values()) | {"deepseek_v3"} <= load_registry().reasoning_parsers
