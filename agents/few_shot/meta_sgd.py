"""Meta-SGD: Li et al. 2017, "Learning to Learn Quickly for Few-Shot Learning": φ = θ - α ∘ ∇L(θ)."""

import torch
from torch import nn

from .gradient import Params
from .maml import Maml


class MetaSgd(Maml):
    """MAML with a learned step size, and direction, for every parameter."""

    def make_rule(self) -> None:
        """α, of the shapes of θ."""
        lr = self.config.inner_lr
        self.alpha = nn.ParameterList(torch.full_like(p, lr) for p in self.network.params)

    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """φ ← φ - α ∘ ∇L(φ)."""
        return [p - a * g for p, a, g in zip(params, self.alpha, gradient, strict=True)], memory

    def told(self) -> dict[str, float]:
        """The mean step size."""
        alpha = torch.cat([a.detach().flatten() for a in self.alpha])
        return {"inner_lr": alpha.mean().item(), "inner_lr_std": alpha.std().item()}
