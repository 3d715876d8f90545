"""The configuration of a published NVILA-Lite folder: `config.json` and those of its three parts as one.

Facts from VILA: the parts `llm/`, `vision_tower/` and `mm_projector/` each have a configuration of their own, which is
the one that counts (llava/model/utils/utils.py, llava/model/multimodal_encoder/builder.py); `config.json` repeats them
as `llm_cfg`, `vision_tower_cfg` and `mm_projector_cfg`, and adds how pictures are cut
(llava/model/configuration_llava.py).
"""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, Qwen2Config, SiglipVisionConfig

from gateway.nvila.projector import FOLDS

PARTS = ("llm", "vision_tower", "mm_projector")
"""Subfolders of a published checkpoint, in which weights and configurations lie."""

_WAYS = ("dynamic", "resize")
_OTHER_ENCODINGS = ("s2", "dynamic_s2", "ps3")


class NvilaConfig(PreTrainedConfig):
    """What `config.json` says, with the parts' own configurations in place of its copies.

    Raises ValueError, with a sentence for people, for members of the family that work in another way.
    """

    model_type = "llava_llama"
    sub_configs = {"text_config": Qwen2Config, "vision_config": SiglipVisionConfig}  # noqa: RUF012, as the base has it

    def __init__(
        self,
        llm_cfg: dict[str, Any] | None = None,
        vision_tower_cfg: dict[str, Any] | None = None,
        mm_projector_cfg: dict[str, Any] | None = None,
        picture_settings: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.llm_cfg = dict(llm_cfg or {})
        self.vision_tower_cfg = dict(vision_tower_cfg or {})
        self.mm_projector_cfg = dict(mm_projector_cfg or {})
        self.picture_settings = dict(picture_settings or {})
        self.text_config = Qwen2Config(**self.llm_cfg)
        self.vision_config = SiglipVisionConfig(**self.vision_tower_cfg)
        self.image_aspect_ratio = settings.pop("image_aspect_ratio", None)
        self.min_tiles = settings.pop("min_tiles", None) or 1
        self.max_tiles = settings.pop("max_tiles", None) or 12
        self.num_video_frames = settings.pop("num_video_frames", None) or 8
        self.mm_vision_select_layer = settings.pop("mm_vision_select_layer", None) or -2
        self.mm_vision_select_feature = settings.pop("mm_vision_select_feature", None)
        # What is kept of a picture is wrapped in text: NVIDIA names a class and may set its texts.
        self.image_encoder = _read_encoder(settings.pop("image_encoder", None))
        self.video_encoder = _read_encoder(settings.pop("video_encoder", None))
        for key in ("text_config", "vision_config"):  # made of the above, here and where this is read back
            settings.pop(key, None)
        super().__init__(**settings)
        if self.llm_cfg:  # Transformers makes one without any settings, to compare with
            self._require_served()

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of `config.json` with that of the parts' files; without a part's file, what is said of it."""
        found, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        folder = Path(pretrained_model_name_or_path)
        for part in PARTS:
            if own := _read_json(folder / part / "config.json"):
                found[f"{part}_cfg"] = own
        found["picture_settings"] = _read_json(folder / "vision_tower" / "preprocessor_config.json")
        return found, rest

    @property
    def projector_kind(self) -> str:
        """The published name of the projector."""
        return str(self.mm_projector_cfg.get("mm_projector_type"))

    @property
    def side(self) -> int:
        """Pixels along each side of a tile."""
        return int(self.vision_config.image_size)

    @property
    def fold(self) -> int:
        """How many patches along each side the projector makes one token of."""
        return FOLDS[self.projector_kind]

    @property
    def tokens_per_tile(self) -> int:
        """Tokens that the language model gets of a tile; a grid that does not divide evenly is padded."""
        patches = self.side // int(self.vision_config.patch_size)
        return (-(-patches // self.fold)) ** 2

    @property
    def most_tiles(self) -> int:
        """Tiles of a picture that is cut most: a grid of them, and the whole. Of one that is not cut, itself."""
        return self.max_tiles + 1 if self.image_aspect_ratio == "dynamic" and self.max_tiles > 1 else 1

    @property
    def tower_layers(self) -> int:
        """Layers of the tower that are run: its features are taken behind one of the last."""
        layers = int(self.vision_config.num_hidden_layers)
        place = self.mm_vision_select_layer
        return layers + 1 + place if place < 0 else place

    def _require_served(self) -> None:
        language, tower = self.llm_cfg.get("model_type"), self.vision_tower_cfg.get("model_type")
        refusals = {
            f"the projector {self.projector_kind}": self.projector_kind not in FOLDS,
            f"the language model {language}": language != "qwen2",
            f"the vision tower {tower}": tower != "siglip_vision_model",
            f"image_aspect_ratio {self.image_aspect_ratio}": self.image_aspect_ratio not in _WAYS,
            "mm_vision_select_feature other than cls_patch": self.mm_vision_select_feature != "cls_patch",
            "an fps of its own for videos": bool(getattr(self, "fps", None)),
            "an encoder of pictures or videos other than the basic one": not self._is_basic(),
        }
        refusals |= {f"{name} encoding": bool(getattr(self, name, False)) for name in _OTHER_ENCODINGS}
        refused = next((what for what, is_so in refusals.items() if is_so), None)
        if refused is not None:
            raise ValueError(f"Of the VILA family only NVILA-Lite is served, not one with {refused}")

    def _is_basic(self) -> bool:
        pairs = ((self.image_encoder, "BasicImageEncoder"), (self.video_encoder, "BasicVideoEncoder"))
        return all(not encoder or str(encoder.get("_target_")).endswith(f".{name}") for encoder, name in pairs)


def _read_encoder(value: object) -> dict[str, Any]:
    """The settings of an encoder, which `config.json` holds as JSON within JSON or as an object."""
    content = json.loads(value) if isinstance(value, str) else value
    return dict(content) if isinstance(content, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text())
    return content if isinstance(content, dict) else {}
