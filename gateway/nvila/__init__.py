"""A model plugin for vLLM: NVILA-Lite as NVIDIA publishes it. vLLM finds `register` by an entry point.

It runs inside engines only, stands apart from the rest of the gateway, and is imported by none of it. What it knows of
NVILA was read in the released code of VILA (github.com/NVlabs/VILA, Apache-2.0); each file says which part of it.
"""

import logging

logger = logging.getLogger(__name__)

ARCHITECTURE = "LlavaLlamaModel"
"""The class that a published `config.json` names (llava/model/language_model/llava_llama.py)."""


def register() -> None:
    """Make model, configuration and video sampling known to vLLM; harmless when it is called again.

    vLLM calls it in every engine: where it has changed, those that serve other models must start all the same.
    """
    try:
        _register()
    except (ImportError, AttributeError, TypeError):
        logger.exception("NVILA cannot be served by this release of vLLM")


def _register() -> None:
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from gateway.nvila.config import NvilaConfig

    AutoConfig.register(NvilaConfig.model_type, NvilaConfig, exist_ok=True)
    # By name: importing the model itself would bring CUDA into processes that only ask what it is.
    ModelRegistry.register_model(ARCHITECTURE, "gateway.nvila.model:NvilaForConditionalGeneration")
    _register_frames()


def _register_frames() -> None:
    from vllm.multimodal.video import VIDEO_LOADER_REGISTRY

    from gateway.nvila.frames import FRAMES, NvilaFrames

    VIDEO_LOADER_REGISTRY.register(FRAMES)(NvilaFrames)
