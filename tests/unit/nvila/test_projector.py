from typing import Any

import pytest


@pytest.fixture(scope="module")
def torch() -> Any:
    import torch

    return torch


def test_neighbours_are_folded_row_by_row(torch: Any) -> None:
    from gateway.nvila.projector import Fold

    patches = torch.arange(16.0).view(1, 16, 1)
    folded = Fold(2)(patches)
    assert folded.tolist() == [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]


def test_a_grid_that_does_not_divide_is_padded_below_and_to_the_right(torch: Any) -> None:
    from gateway.nvila.projector import Fold

    folded = Fold(3)(torch.arange(1.0, 17.0).view(1, 16, 1))
    assert folded.shape == (1, 4, 9)
    assert folded[0, 1].tolist() == [4, 0, 0, 8, 0, 0, 12, 0, 0]
    assert folded[0, 3].tolist() == [16, 0, 0, 0, 0, 0, 0, 0, 0]


def test_channels_stay_together(torch: Any) -> None:
    from gateway.nvila.projector import Fold

    folded = Fold(2)(torch.arange(8.0).view(1, 4, 2))
    assert folded.tolist() == [[[0, 1, 2, 3, 4, 5, 6, 7]]]


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("mlp_downsample_2x2_fix", {"layers.1", "layers.2", "layers.4"}),
        ("mlp_downsample_3x3_fix", {"layers.1", "layers.2", "layers.4", "layers.5", "layers.7"}),
    ],
)
def test_weights_have_their_published_names(torch: Any, kind: str, names: set[str]) -> None:
    from gateway.nvila.projector import FOLDS, Projector

    projector = Projector(kind, 4, 6)
    assert {name.rpartition(".")[0] for name in projector.state_dict()} == names
    assert projector(torch.zeros(2, 36, 4)).shape == (2, (6 // FOLDS[kind]) ** 2, 6)
