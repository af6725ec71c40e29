"""Reptile: Nichol et al. 2018, "On First-Order Meta-Learning Algorithms", algorithm 2 (batched).

θ ← θ + ε mean_i(φ_i - θ), φ_i being what some steps on minibatches of task i make of θ: of Adam with β_1 = 0,
as in the published code, or of gradient descent. Or Adam takes θ - φ for a gradient, as section 3 there says.
"""

from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from metarl import STRICT, Trial

from .gradient import GradientConfig, GradientLearner, Params
from .learner import Examples

BETA2, EPS = 0.999, 1e-8


class Reptile(GradientLearner):
    """A network whose initial parameters move towards those that tasks make of them."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(GradientConfig):
        """Settings."""

        outer_optimizer: Literal["plain", "adam"] = "plain"
        """What moves θ: a plain step, or Adam."""
        learning_rate: PositiveFloat = 1.0
        """Size of the outer step, ε, or Adam's."""
        inner_optimizer: Literal["adam", "sgd"] = "adam"
        """What moves φ: Adam with β_1 = 0, or gradient descent."""
        inner_lr: PositiveFloat = 1e-3
        """Size of an inner step."""
        adapt_lr: PositiveFloat | None = None
        """The same in evaluation; none: as in training."""
        inner_steps: PositiveInt = 5
        inner_batch: PositiveInt = 10
        """Examples in each of the inner steps in training, of all classes alike; all in evaluation."""

    config: Config

    def optimise(self) -> None:
        """The outer step is plain, or Adam's."""
        if self.config.outer_optimizer == "adam":
            super().optimise()

    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """One on a minibatch."""
        return self.moved(self.config.inner_lr, k, params, gradient, memory)

    def adapt_step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """One on the support set."""
        return self.moved(self.config.adapt_lr or self.config.inner_lr, k, params, gradient, memory)

    def moved(
        self, lr: float, k: int, params: Params, gradient: Params, memory: Params
    ) -> tuple[Params, Params]:
        """φ ← φ - α g, or v ← β_2 v + (1 - β_2) g², φ ← φ - α g / (√(v / (1 - β_2^k)) + ε)."""
        if self.config.inner_optimizer == "sgd":
            return [p - lr * g for p, g in zip(params, gradient, strict=True)], memory
        old = memory or [torch.zeros_like(g) for g in gradient]
        memory = [BETA2 * v + (1 - BETA2) * g.square() for v, g in zip(old, gradient, strict=True)]
        unbiased = 1 - BETA2 ** (k + 1)
        moved = (
            p - lr * g / ((v / unbiased).sqrt() + EPS)
            for p, g, v in zip(params, gradient, memory, strict=True)
        )
        return [*moved], memory

    def minibatches(self, y: Tensor) -> Tensor:
        """Places of each step's examples [N, K, B]: in turn, each used as often as any other, and each class.

        The published code does not look after the classes; with unequal shares a step mostly follows those.
        """
        c, (tasks, examples) = self.config, y.shape[:2]
        batch = min(c.inner_batch, examples)
        turns = -(-c.inner_steps * batch // examples)
        chance = torch.rand(tasks, turns, examples, generator=self.rng, device=y.device)
        if self.classes:  # its place within its class first
            alike = (y.unsqueeze(1) == y.unsqueeze(2)).unsqueeze(1)
            before = chance.unsqueeze(2) < chance.unsqueeze(3)  # [N, turns, E, E]
            chance = chance + (alike & before).sum(-1)
        order = chance.argsort(-1).flatten(1)[:, : c.inner_steps * batch]
        return order.unflatten(1, (c.inner_steps, batch))

    def trained(self, x: Tensor, y: Tensor, places: Tensor) -> Params:
        """φ of N tasks, [N, ...] each: a step on each of the minibatches whose places [N, K, B] are given."""
        theta = [p.detach().expand(len(x), *p.shape) for p in self.network.params]
        tasks = torch.arange(len(x), device=x.device).unsqueeze(1)
        batches = (Examples(x[tasks, at], y[tasks, at]) for at in places.unbind(1))
        return self.descended(theta, batches, self.step)

    @torch.no_grad()
    def meta_update(self, trial: Trial) -> dict[str, float]:
        """Move θ; all rounds but the last are learned from, and the last says how well they were."""
        c, (*supports, query) = self.config, self.examples(trial)
        x, y = (torch.cat(parts, 1) for parts in zip(*supports, strict=True))
        phi = self.over_tasks(self.trained, x, y, self.minibatches(y))
        away = [theta - p.mean(0) for theta, p in zip(self.network.weights, phi, strict=True)]
        if c.outer_optimizer == "adam":
            self.descend(away)
        else:
            torch._foreach_sub_(list(self.network.weights), away, alpha=self.learning_rate)
            self.updates += 1
        outputs = self.over_tasks(self.network.run_each, phi, query.x)
        told = self.loss(outputs, query.y).mean(), self.earned(outputs, query.y).mean()
        return dict(zip(("loss", f"return_{len(supports)}"), torch.stack(told).tolist(), strict=True))
