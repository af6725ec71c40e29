"""Reptile: Nichol et al. 2018, "On First-Order Meta-Learning Algorithms", algorithm 2 (batched).

θ ← θ + ε mean_i(φ_i - θ), φ_i being what some steps of Adam with β_1 = 0 on minibatches of task i make of θ.
"""

import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.func import vmap

from metarl import STRICT, Trial

from .gradient import GradientConfig, GradientLearner, Params

BETA2, EPS = 0.999, 1e-8


class Reptile(GradientLearner):
    """A network whose initial parameters move towards those that tasks make of them."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(GradientConfig):
        """Settings; the learning rate is ε, the outer step, and `inner_lr` that of Adam."""

        learning_rate: PositiveFloat = 1.0
        inner_lr: PositiveFloat = 1e-3
        inner_steps: PositiveInt = 5
        inner_batch: PositiveInt = 10
        """Examples in each of the inner steps in training; all of a support set in evaluation."""

    config: Config

    def optimise(self) -> None:
        """The outer step is plain."""

    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """v ← β_2 v + (1 - β_2) g², φ ← φ - α g / (√(v / (1 - β_2^k)) + ε)."""
        old = memory or [torch.zeros_like(g) for g in gradient]
        memory = [BETA2 * v + (1 - BETA2) * g.square() for v, g in zip(old, gradient, strict=True)]
        unbiased = 1 - BETA2 ** (k + 1)
        moved = (
            p - self.config.inner_lr * g / ((v / unbiased).sqrt() + EPS)
            for p, g, v in zip(params, gradient, memory, strict=True)
        )
        return [*moved], memory

    def trained(self, x: Tensor, y: Tensor, places: Tensor) -> Params:
        """φ of one task: a step on each of the minibatches whose places [K, B] are given."""
        params, memory = self.network.params, Params()
        for k, place in enumerate(places):
            gradient, _ = torch.func.grad(self.task_loss, has_aux=True)(params, x[place], y[place])
            params, memory = self.step(k, params, gradient, memory)
        return params

    @torch.no_grad()
    def meta_update(self, trial: Trial) -> dict[str, float]:
        """Move θ; all rounds but the last are learned from, and the last says how well they were."""
        c, (*supports, query) = self.config, self.examples(trial)
        x, y = (torch.cat(parts, 1) for parts in zip(*supports, strict=True))
        batch = min(c.inner_batch, x.shape[1])
        chance = torch.rand(len(x), c.inner_steps, x.shape[1], generator=self.rng, device=x.device)
        phi = self.over_tasks(vmap(self.trained), x, y, chance.argsort(-1)[..., :batch])
        rate = self.learning_rate
        for theta, p in zip(self.network.weights, phi, strict=True):
            theta += rate * (p.mean(0) - theta)
        self.updates += 1
        outputs = self.over_tasks(vmap(self._said), phi, query.x)
        told = self.loss(outputs, query.y).mean(), self.earned(outputs, query.y).mean()
        return dict(zip(("loss", f"return_{len(supports)}"), torch.stack(told).tolist(), strict=True))

    def _said(self, params: Params, x: Tensor) -> Tensor:
        return self.network.run(params, x).value
