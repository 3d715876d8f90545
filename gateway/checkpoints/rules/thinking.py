"""Rules about models that think before they answer: what their template says of it, and what tells the two apart."""

from collections.abc import Iterator

from gateway.checkpoints.contents import Contents
from gateway.checkpoints.findings import Finding, make_printable, note
from gateway.checkpoints.templates import find_names

SWITCHES = ("enable_thinking", "thinking", "thinking_mode", "enable_reasoning", "reasoning_effort")
"""Names by which templates let requests say whether the model is to think."""

PARSERS = {
    "qwen3": "qwen3", "deepseek_v32": "deepseek_v3", "deepseek_v3": "deepseek_r1", "glm4_moe": "glm45",
    "glm4v": "glm45", "granite": "granite", "gpt_oss": "openai_gptoss", "ernie4_5": "ernie45",
    "hunyuan_v1": "hunyuan_a13b", "minimax_m2": "minimax_m2", "seed_oss": "seed_oss", "step3": "step3",
    "olmo3": "olmo3", "gemma4": "gemma4", "nemotron_h": "nemotron_v3", "mimo": "mimo",
}  # fmt: skip
"""The engine's parser for a family, by the beginning of its model type."""

_MARK = "<think>"


def judge_thinking(contents: Contents) -> Iterator[Finding]:
    """A note about a model that thinks, with the settings for it."""
    template = contents.templates.texts[0][1] if contents.templates.texts else ""
    names = find_names(template)
    switch = next((name for name in SWITCHES if name in names), None)
    if switch is None and _MARK not in template:
        return
    file = contents.templates.file
    how = f"requests switch it by chat_template_kwargs {{{switch}: …}}" if switch else "its template has no switch"
    message = f"{file}: the model thinks before it answers, and {how}"
    parser = _suggest_parser(contents, switch)
    mend = f"set reasoning: {{parser: {parser or 'NAME'}}} for the version to have thinking and answer told apart"
    if switch in ("enable_thinking", "thinking", "enable_reasoning"):
        mend += f"; defaults: {{chat_template_kwargs: {{{switch}: false}}}} switches it off where requests do not say"
    yield note("template-thinks", make_printable(file), message, mend)


def _suggest_parser(contents: Contents, switch: str | None) -> str | None:
    kind = contents.config.text("model_type") or ""
    own = next((parser for beginning, parser in PARSERS.items() if kind.startswith(beginning)), None)
    if own == "deepseek_r1" and switch is not None:
        return "deepseek_v3"
    if own is not None:
        return own
    # Others were mostly taught by one of two families, whose marks they use. That of DeepSeek-R1 takes an answer
    # without thinking for thinking without an answer, so that it is for models that cannot be told to leave it.
    return "qwen3" if switch == "enable_thinking" else "deepseek_r1" if switch is None else None
