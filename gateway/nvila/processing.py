"""From pictures and videos in a chat to the tokens and numbers that the model gets; vLLM's side of `tiles.py`.

Facts from VILA: a tile is its tokens and then the encoder's end text, a newline by default, as text of its own
(llava/model/encoders/image/basic.py; video/basic.py alike, frame by frame); a lone picture's tiles are each followed by
one more newline (llava/model/llava_arch.py, generate_content). The one behind its last tile stands in the chat, where
the tokenizer may make one token of it and of what follows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdateDetails,
)

from gateway.nvila.config import NvilaConfig
from gateway.nvila.tiles import cut_tiles, spread_frames, to_numbers, whole_tile

IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<vila/video>"
"""What marks their places in a prompt (llava/constants.py)."""


class NvilaPictures:
    """Cuts pictures and videos and turns them into numbers, in the place of a processor of Transformers."""

    def __init__(self, config: NvilaConfig) -> None:
        self._config = config

    def __call__(
        self,
        images: Sequence[Image.Image] = (),
        videos: Sequence[Any] = (),
        *,
        cuts_tiles: bool = False,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Tiles of all pictures and frames of all videos, with how many each has."""
        found: dict[str, torch.Tensor] = {}
        if images:
            found |= self._stack("pixel_values", "image_tiles", [self._cut(image, cuts_tiles) for image in images])
        if videos:
            found |= self._stack("video_pixel_values", "video_frames", [self._sample(video) for video in videos])
        return BatchFeature(found)

    def _cut(self, picture: Image.Image, cuts_tiles: bool) -> list[Image.Image]:
        picture = picture.convert("RGB")
        if not cuts_tiles or self._config.image_aspect_ratio != "dynamic":
            return [whole_tile(picture, self._config.side)]
        return cut_tiles(picture, self._config.side, self._config.min_tiles, self._config.max_tiles)

    def _sample(self, video: Any) -> list[Image.Image]:
        numbers = spread_frames(len(video), self._config.num_video_frames)
        return [whole_tile(_read_frame(video[number]), self._config.side) for number in numbers]

    def _stack(self, values: str, counts: str, items: list[list[Image.Image]]) -> dict[str, torch.Tensor]:
        numbers = to_numbers([tile for tiles in items for tile in tiles], self._config.picture_settings)
        return {values: torch.from_numpy(numbers), counts: torch.tensor([len(tiles) for tiles in items])}


def _read_frame(frame: Any) -> Image.Image:
    picture = frame if isinstance(frame, Image.Image) else Image.fromarray(np.asarray(frame))
    return picture.convert("RGB")


class NvilaProcessingInfo(BaseProcessingInfo):
    """What vLLM asks of a model that sees."""

    def get_hf_config(self) -> NvilaConfig:
        """The model's configuration."""
        config: NvilaConfig = self.ctx.get_hf_config(NvilaConfig)
        return config

    def get_hf_processor(self, **_: object) -> NvilaPictures:
        """What turns pictures into numbers."""
        return NvilaPictures(self.get_hf_config())

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Any number of pictures and videos."""
        return {"image": None, "video": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """What one picture or video takes at most. vLLM would measure both together, where no picture is cut."""
        config = self.get_hf_config()
        return {
            "image": config.most_tiles * config.tokens_per_tile,
            "video": config.num_video_frames * config.tokens_per_tile,
        }

    def find_token(self, token: str) -> int:
        """The number of a media token. Raises ValueError if the tokenizer does not have it."""
        number = self.get_tokenizer().get_vocab().get(token)
        if number is None:
            raise ValueError(f"The tokenizer in llm/ has no token {token}: save it from the published model")
        return int(number)

    def encode(self, text: str | None) -> list[int]:
        """A piece of text as tokens."""
        return list(self.get_tokenizer().encode(text, add_special_tokens=False)) if text else []


class NvilaDummyInputs(BaseDummyInputsBuilder[NvilaProcessingInfo]):
    """The largest inputs there are, by which vLLM measures the memory it needs."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """A prompt with these numbers of pictures and videos."""
        return IMAGE_TOKEN * mm_counts.get("image", 0) + VIDEO_TOKEN * mm_counts.get("video", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]) -> Any:
        """Pictures as wide as the most tiles side by side, and videos of as many frames as are taken."""
        config = self.info.get_hf_config()
        videos = self._get_dummy_videos(
            width=config.side, height=config.side, num_frames=config.num_video_frames,
            num_videos=mm_counts.get("video", 0), overrides=mm_options.get("video"),
        )  # fmt: skip
        images = self._get_dummy_images(
            width=config.side * config.max_tiles, height=config.side,
            num_images=mm_counts.get("image", 0), overrides=mm_options.get("image"),
        )  # fmt: skip
        return {"image": images, "video": videos}


class NvilaProcessor(BaseMultiModalProcessor[NvilaProcessingInfo]):
    """Puts the tokens of pictures and videos in the places that the chat template marks."""

    def apply(self, inputs: Any, timing_ctx: Any) -> Any:
        """Process one prompt. Whether a picture is cut depends on the others, so it counts in what is cached of it."""
        counts = inputs.mm_data_items.get_all_counts()
        is_alone = counts.get("image", 0) == 1 and not counts.get("video", 0)
        settings = {**inputs.hf_processor_mm_kwargs, "cuts_tiles": is_alone}
        return super().apply(replace(inputs, hf_processor_mm_kwargs=settings), timing_ctx)

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        nothing = torch.zeros(0, dtype=torch.long)
        flat = MultiModalFieldConfig.flat_from_sizes
        return {
            "pixel_values": flat("image", hf_inputs.get("image_tiles", nothing)),
            "image_tiles": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
            "video_pixel_values": flat("video", hf_inputs.get("video_frames", nothing)),
            "video_frames": MultiModalFieldConfig.batched("video", keep_on_cpu=True),
        }

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Iterable[PromptReplacement]:
        config = self.info.get_hf_config()
        kinds: tuple[tuple[str, str, str, dict[str, Any], list[int]], ...] = (
            ("image", IMAGE_TOKEN, "image_tiles", config.image_encoder, self.info.encode("\n")),
            ("video", VIDEO_TOKEN, "video_frames", config.video_encoder, []),
        )
        for modality, token, counts, encoder, between in kinds:
            if not mm_items.get_count(modality, strict=False):
                continue
            number = self.info.find_token(token)
            tile = self._wrap([number] * config.tokens_per_tile, encoder)
            items = out_mm_kwargs[modality]

            def replace_mark(
                index: int, items: Any = items, key: str = counts, tile: list[int] = tile,
                between: list[int] = between, number: int = number,
            ) -> PromptUpdateDetails:  # fmt: skip
                tiles = int(items[index][key].data)
                return PromptUpdateDetails.select_token_id((tile + between) * (tiles - 1) + tile, number)

            yield PromptReplacement(modality=modality, target=[number], replacement=replace_mark)

    def _wrap(self, tokens: list[int], encoder: Mapping[str, Any]) -> list[int]:
        start, end = encoder.get("start_tokens"), encoder.get("end_tokens", "\n")
        return [*self.info.encode(start), *tokens, *self.info.encode(end)]
