"""The optimiser's hyper-parameters as meta-parameters: a step size and a momentum for each layer and step.

Step sizes per layer and step as in Antoniou et al. 2019, "How to Train Your MAML" (section 4, LSLR); momentum
learned through the unrolled steps as in Maclaurin et al. 2015.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from metarl import STRICT

from .gradient import GradientConfig, GradientLearner, Params


class LearnedMomentum(GradientLearner):
    """MAML with heavy-ball steps, each of which has learned its size and how much it keeps of the last."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(GradientConfig):
        """Settings; `inner_lr` is where the step sizes start."""

        momentum: Annotated[float, Field(gt=0, lt=1)] = 0.1
        """Where the momenta start."""

    config: Config

    def make_rule(self) -> None:
        """log α and logit μ, [K, number of tensors]: so a step size stays positive, a momentum in (0, 1)."""
        c, where = self.config, self.rng.device
        size = c.inner_steps, len(self.network.params)
        start = math.log(c.momentum / (1 - c.momentum))
        self.log_lr = nn.Parameter(torch.full(size, math.log(c.inner_lr), device=where))
        self.logit_momentum = nn.Parameter(torch.full(size, start, device=where))

    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """v ← μ_k v + ∇L(φ), φ ← φ - α_k v; steps beyond the learned ones are like the last of these."""
        k = min(k, self.config.inner_steps - 1)
        lr, momentum = self.log_lr[k].exp(), self.logit_momentum[k].sigmoid()
        old = memory or [torch.zeros_like(g) for g in gradient]
        velocity = [m * v + g for m, v, g in zip(momentum, old, gradient, strict=True)]
        return [p - a * v for p, a, v in zip(params, lr, velocity, strict=True)], velocity

    def told(self) -> dict[str, float]:
        """The mean step size and momentum."""
        return {
            "inner_lr": self.log_lr.exp().mean().item(),
            "momentum": self.logit_momentum.sigmoid().mean().item(),
        }
