"""Main module: serves an NVILA checkpoint in float32 by vLLM in this process, asks once, and saves every state on the way.

python -m tests.support.nvila_states FOLDER PICTURE PROMPT OUT.safetensors
"""

import os
import sys
from pathlib import Path
from typing import Any

NORM = "language_model.model.norm"
PARTS = ("vision_tower.vision_model.embeddings", "mm_projector", NORM)


def main(folder: str, picture: str, prompt: str, out: str) -> None:
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    from gateway.engines import launcher

    launcher.adapt_libraries()
    from PIL import Image
    from safetensors.torch import save_file
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=folder, tokenizer=str(Path(folder) / "llm"), dtype="float32", enforce_eager=True,
        kv_cache_memory_bytes=2**27, max_model_len=2048, max_num_seqs=1,
    )  # fmt: skip
    states: dict[str, Any] = {}
    engine.apply_model(lambda model: watch(model, states))
    request: Any = {"prompt": prompt, "multi_modal_data": {"image": Image.open(picture)}}
    (answer,) = engine.generate(request, SamplingParams(temperature=0, max_tokens=1))
    import torch

    final = states.pop(NORM)
    states["logits"] = engine.apply_model(lambda model: model.compute_logits(final))[0]
    states["prompt"] = torch.tensor(answer.prompt_token_ids)
    save_file({name: value.contiguous() for name, value in states.items()}, out)


def watch(model: Any, states: dict[str, Any]) -> None:
    """Keep what the parts of the model give when they run for the first time."""
    layers = ("vision_tower.vision_model.encoder.layers", "language_model.model.layers")
    names = [*PARTS, *(f"{name}.{number}" for name in layers for number in range(len(model.get_submodule(name))))]
    for name in names:

        def keep(_: Any, __: Any, output: Any, name: str = name) -> None:
            if isinstance(output, tuple):
                # A layer of vLLM's Qwen2 gives apart what it adds and what it adds it to, one of SigLIP nothing second.
                output = output[0] if output[1] is None or name == NORM else output[0] + output[1]
            states.setdefault(name, output.detach().clone())

        model.get_submodule(name).register_forward_hook(keep)


if __name__ == "__main__":
    main(*sys.argv[1:])
