"""The projector of NVILA: folds neighbouring patches into one token and brings it to the language model's size.

Order of layers and numbers in the names of tensors are those of llava/model/multimodal_projector/base_projector.py. The
fold itself is layer 0 of the published list and has no weights.
"""

import torch
from torch import nn
from torch.nn import functional

FOLDS = {"mlp_downsample_2x2_fix": 2, "mlp_downsample_3x3_fix": 3}
"""Kinds of projectors by their published names: how many patches along each side become one token."""


class Fold(nn.Module):
    """Makes one vector of each square of patches, row by row; a grid that does not divide is padded with zeros."""

    def __init__(self, fold: int) -> None:
        super().__init__()
        self.fold = fold

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """From tiles by patches by channels to tiles by squares by fold² · channels."""
        tiles, patches, channels = features.shape
        side = int(patches**0.5)
        missing = -side % self.fold
        grid = functional.pad(features.view(tiles, side, side, channels), (0, 0, 0, missing, 0, missing))
        squares = (side + missing) // self.fold
        split = grid.view(tiles, squares, self.fold, squares, self.fold, channels)
        return split.transpose(2, 3).reshape(tiles, squares * squares, self.fold * self.fold * channels)


class Projector(nn.Module):
    """The published projector of one kind. Raises KeyError for a kind that is not in `FOLDS`."""

    def __init__(self, kind: str, vision_size: int, language_size: int) -> None:
        super().__init__()
        fold = FOLDS[kind]
        folded = vision_size * fold * fold
        if fold == 2:
            layers = [nn.LayerNorm(folded), nn.Linear(folded, language_size)]
        else:
            inner = vision_size * 3
            first = [nn.LayerNorm(folded), nn.Linear(folded, inner), nn.GELU()]
            layers = [*first, nn.LayerNorm(inner), nn.Linear(inner, language_size)]
        self.layers = nn.Sequential(Fold(fold), *layers, nn.GELU(), nn.Linear(language_size, language_size))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """From tiles by patches by vision_size to tiles by tokens by language_size."""
        projected: torch.Tensor = self.layers(features)
        return projected
