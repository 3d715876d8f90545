"""NVILA-Lite in vLLM: vLLM's SigLIP tower and Qwen2 around the published projector, loaded from the published folders.

Facts from VILA: features are the states behind the layer `mm_vision_select_layer` counts back to, without the tower's
last norm (llava/model/multimodal_encoder/vision_encoder.py); each part's weights are named as if it stood alone
(llava/model/llava_arch.py, save_pretrained).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.siglip import SiglipVisionModel
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    init_vllm_registered_model,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from gateway.nvila.config import NvilaConfig
from gateway.nvila.processing import IMAGE_TOKEN, VIDEO_TOKEN, NvilaDummyInputs, NvilaProcessingInfo, NvilaProcessor
from gateway.nvila.projector import Projector


@MULTIMODAL_REGISTRY.register_processor(
    NvilaProcessor, info=NvilaProcessingInfo, dummy_inputs=NvilaDummyInputs
)  # fmt: skip
class NvilaForConditionalGeneration(nn.Module, SupportsLoRA, SupportsMultiModal, SupportsPP):
    """The model. Adapters are mounted on the language model only."""

    packed_modules_mapping = {  # noqa: RUF012, vLLM's interface
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    # The folder llm/ names its weights as a language model alone does; adapters that were trained on the whole model
    # say `llm.` before that.
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={"llm.": "", "model.": "language_model.model.", "lm_head.": "language_model.lm_head."}
    )
    allow_patterns_overrides = ["llm/*.safetensors"]  # noqa: RUF012, vLLM's interface

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: NvilaConfig = vllm_config.model_config.hf_config
        self.config = config
        self.secondary_weights = [
            DefaultModelLoader.Source(
                vllm_config.model_config.model, vllm_config.model_config.revision, subfolder=part, prefix=f"{part}.",
                fall_back_to_pt=False,
            )
            for part in ("vision_tower", "mm_projector")
        ]  # fmt: skip
        with self._mark_tower_model(vllm_config, {"image", "video"}):
            self.vision_tower = SiglipVisionModel(
                config.vision_config,
                vllm_config.quant_config,
                num_hidden_layers_override=config.tower_layers,
                require_post_norm=False,
                prefix=maybe_prefix(prefix, "vision_tower"),
            )
            self.mm_projector = Projector(
                config.projector_kind, config.vision_config.hidden_size, config.text_config.hidden_size
            )
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                prefix=maybe_prefix(prefix, "language_model"),
                architectures=["Qwen2ForCausalLM"],
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """What marks the place of a picture or a video in a prompt."""
        return VIDEO_TOKEN if modality.startswith("video") else IMAGE_TOKEN

    def embed_input_ids(
        self,
        input_ids: torch.Tensor,
        multimodal_embeddings: Any = None,
        *,
        is_multimodal: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings of the prompt, with those of pictures and videos in their places.

        Marks of pictures may have no row of their own, which VILA does not look up. Where a client has typed one in a
        plain prompt, a lookup beyond the last row would end the engine.
        """
        known = input_ids.masked_fill(input_ids >= self.config.text_config.vocab_size, 0)
        embedded: torch.Tensor = super().embed_input_ids(known, multimodal_embeddings, is_multimodal=is_multimodal)
        return embedded

    def embed_multimodal(self, **media: Any) -> list[torch.Tensor]:
        """Embeddings of each picture, then of each video: all its tiles or frames, one after the other."""
        pairs = (("pixel_values", "image_tiles"), ("video_pixel_values", "video_frames"))
        return [item for values, counts in pairs for item in self._embed_tiles(media.get(values), media.get(counts))]

    def _embed_tiles(self, pixels: torch.Tensor | None, counts: torch.Tensor | None) -> Iterable[torch.Tensor]:
        if pixels is None or counts is None:
            return []
        projected: torch.Tensor = self.mm_projector(self.vision_tower(pixels))
        return [tiles.flatten(0, 1) for tiles in projected.split(counts.flatten().tolist())]

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **_: object,
    ) -> Any:
        """States of the language model behind its last layer."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """How likely each token comes next."""
        logits: torch.Tensor | None = self.language_model.compute_logits(hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Take the weights of all three folders; the names of those that were taken. Raises ValueError."""
        taken: set[str] = AutoWeightsLoader(self).load_weights(_refuse_second(weights), mapper=self.hf_to_vllm_mapper)
        return taken

    def get_mm_mapping(self) -> MultiModelKeys:
        """Which attribute is which part of the model."""
        return MultiModelKeys.from_string_field(
            language_model="language_model", connector="mm_projector", tower_model="vision_tower"
        )


def _refuse_second(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """All of them, each name once: of two files with the same tensors the later one would win unseen."""
    seen: set[str] = set()
    for name, tensor in weights:
        if name in seen:
            raise ValueError(f"{name} stands in two files: leave only those that the index names")
        seen.add(name)
        yield name, tensor
