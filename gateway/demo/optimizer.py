"""The optimiser: momentum made orthogonal for the weight matrices of the layers, AdamW for everything else.

On two cores the number of steps is what there is least of; orthogonal updates need about half as many here. They are
dear, so each process makes those of its own share of the matrices.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import distributed

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


class Optimizer:
    """Both optimisers behind one `step`; rates are set by a share of their peaks."""

    def __init__(self, model: Any, heads: Any, matrix_rate: float = 0.012, rate: float = 1e-3) -> None:
        named = dict(model.named_parameters())
        self._matrices = [w for name, w in named.items() if w.ndim == 2 and "embed" not in name]
        chosen = {id(weight) for weight in self._matrices}
        first = [w for name, w in named.items() if "patch_embed" in name]
        chosen |= {id(weight) for weight in first}
        others = [weight for weight in named.values() if id(weight) not in chosen]
        # The pixels of a patch mostly move together, so one step of its layer is as large as a thousand elsewhere.
        groups = [
            {"params": others, "peak": rate},
            {"params": list(heads.parameters()), "peak": rate},
            {"params": first, "peak": rate * 0.1},
        ]
        self._adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self._matrix_rate = matrix_rate
        self._rank, self._processes = distributed.get_rank(), distributed.get_world_size()
        self._momentum = [torch.zeros_like(weight) for weight in self._matrices]

    def step(self, share: float) -> None:
        """Take one step at `share` of the peak rates and forget the gradients."""
        for group in self._adam.param_groups:
            group["lr"] = group["peak"] * share
        self._adam.step()
        self._step_matrices(self._matrix_rate * share)
        self._exchange()
        self._adam.zero_grad(set_to_none=True)
        for weight in self._matrices:
            weight.grad = None

    @torch.no_grad()
    def _step_matrices(self, rate: float) -> None:
        stacks: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
        for weight, momentum in self._own():
            if weight.grad is None:
                continue
            momentum.lerp_(weight.grad, 0.05)
            ahead = torch.lerp(weight.grad, momentum, 0.95)
            # One fused matrix holds query, key and value: three updates, not one.
            parts = 3 if weight.shape[0] == 3 * weight.shape[1] and weight.shape[1] * 3 == momentum.shape[0] else 1
            for to, change in zip(weight.chunk(parts), ahead.chunk(parts), strict=True):
                stacks[(change.shape[0], change.shape[1])].append((to, change))
        for (rows, columns), pairs in stacks.items():
            changes = orthogonalise(torch.stack([change for _, change in pairs]))
            scale = rate * max(1.0, rows / columns) ** 0.5
            for (weight, _), change in zip(pairs, changes, strict=True):
                weight.mul_(1 - 0.02 * rate).add_(change, alpha=-scale)

    def _own(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(zip(self._matrices, self._momentum, strict=True))[self._rank :: self._processes]

    @torch.no_grad()
    def _exchange(self) -> None:
        """Give every process the matrices that the others have moved."""
        for index, weight in enumerate(self._matrices):
            if index % self._processes != self._rank:
                weight.zero_()
        flat = torch.cat([weight.flatten() for weight in self._matrices])
        distributed.all_reduce(flat)
        for weight, moved in zip(self._matrices, flat.split([w.numel() for w in self._matrices]), strict=True):
            weight.copy_(moved.view_as(weight))


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Push all singular values of a stack of matrices towards one (Newton-Schulz iteration)."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x
