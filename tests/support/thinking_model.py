"""A checkpoint that thinks before it answers, always the same: each token of its script calls for the next one."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.tiny_models import DEMO, VOCABULARY

THOUGHT = " red circle"
ANSWER = " blue"

_THINK, _DONE, _END = VOCABULARY, VOCABULARY + 1, 759
_SWITCH = (
    "{%- if add_generation_prompt -%}\n{{ '<|im_start|>assistant\\n<think>' }}"
    "{%- if enable_thinking is defined and enable_thinking is false -%}{{ '</think>' }}{%- endif -%}\n{%- endif -%}\n"
)


def write_thinking(folder: Path) -> Path:
    """Write it: it thinks THOUGHT and answers ANSWER, whatever it is asked; without thinking if the template says so."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True)
    for name in ("tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(DEMO / name, folder / name)
    tokenizer = _write_tokenizer(folder)
    before, _, _ = (DEMO / "chat_template.jinja").read_text().partition("{%- if add_generation_prompt -%}")
    (folder / "chat_template.jinja").write_text(before + _SWITCH)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY + 2, hidden_size=128, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, eos_token_id=_END, pad_token_id=757, bos_token_id=None,
        tie_word_embeddings=False, dtype="float32",
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    script = [_THINK, *tokenizer.encode(THOUGHT).ids, _DONE, *tokenizer.encode(ANSWER).ids, _END]
    layer = model.model.layers[0]
    with torch.no_grad():
        # Nothing but the last token is heard, and only those of the script have anything to say.
        for silent in (layer.self_attn.o_proj, layer.mlp.down_proj, model.lm_head):
            silent.weight.zero_()
        words = model.model.embed_tokens.weight.normal_()
        for token, successor in pairwise(script):
            model.lm_head.weight[successor] += words[token]
    model.save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    data = json.loads((DEMO / "tokenizer.json").read_text())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    data["added_tokens"] += [
        {"id": _THINK, "content": "<think>", **plain},
        {"id": _DONE, "content": "</think>", **plain},
    ]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
