"""iMAML: Rajeswaran et al. 2019, "Meta-Learning with Implicit Gradients".

The inner problem stays near θ, φ* = argmin L_support(φ) + λ/2 ‖φ - θ‖², so that whatever path led there
dφ*/dθ = (I + ∇²L_support(φ*) / λ)^-1: the meta-gradient solves that system by conjugate gradients.
A few steps end short of the minimum, where the curvature may still be negative: as in published code it is
damped, λ + δ taking λ's place in the system. The larger δ, the nearer to first-order MAML.
"""

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from metarl import STRICT, ConfigError

from .gradient import GradientConfig, GradientLearner, Params
from .learner import Examples


class Imaml(GradientLearner):
    """A network that is adapted by minimising, and meta-learned without unrolling that."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(GradientConfig):
        """Settings, named as in the paper."""

        inner_steps: PositiveInt = 16
        proximity: PositiveFloat = 2.0
        """λ: how strongly parameters are held near θ."""
        cg_iterations: PositiveInt = 5
        """Conjugate gradient iterations."""
        damping: NonNegativeFloat = 10.0
        """δ: added to λ where the meta-gradient divides the curvature by it; 0: as in the paper."""

    config: Config

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """One support set: the implicit gradient is that of one minimum."""
        super().check_rounds(rounds)
        if len(rounds) != 2:
            raise ConfigError(f"rounds is {[*rounds]}; allowed for imaml: 2, a support and a query set")

    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """φ ← φ - α (∇L(φ) + λ (φ - θ)); θ is where the steps began."""
        c, theta = self.config, memory or params
        moved = (
            p - c.inner_lr * (g + c.proximity * (p - t))
            for p, g, t in zip(params, gradient, theta, strict=True)
        )
        return [*moved], theta

    @torch.no_grad()
    def meta_gradient(
        self, supports: Sequence[Examples], query: Examples, chunk: slice
    ) -> tuple[Params, Tensor]:
        """The implicit gradient of a chunk's summed loss, and [loss, return before, return after], summed."""
        cut = [Examples(*(x[chunk] for x in e)) for e in (*supports, query)]
        gradients, said = vmap(self.implicit)(cut[:-1], cut[-1])
        return [g.sum(0) for g in gradients], said.sum(0)

    def implicit(self, supports: Sequence[Examples], query: Examples) -> tuple[Params, Tensor]:
        """(I + ∇²L_support(φ) / (λ + δ))^-1 ∇L_query(φ) of one task."""
        c = self.config
        theta = [p.detach() for p in self.network.params]
        phi, before = self.adapted(theta, supports, c.inner_steps)
        given = self.network.run(phi, supports[-1].x).moments if c.batch_norm == "inductive" else ()
        gradient, (loss, output) = grad_and_value(self.task_loss, has_aux=True)(phi, *query, given)

        def curved(v: Params) -> Params:
            """v + ∇²L_support(φ) v / (λ + δ)."""

            def slope(params: Params) -> Tensor:
                first, _ = grad(self.task_loss, has_aux=True)(params, *supports[-1])
                return inner(first, v)

            return [x + h / (c.proximity + c.damping) for x, h in zip(v, grad(slope)(phi), strict=True)]

        solved = conjugate_gradients(curved, gradient, c.cg_iterations)
        returns = self.earned(before, supports[0].y), self.earned(output.value, query.y)
        return solved, torch.stack([loss, *returns])


def inner(a: Params, b: Params) -> Tensor:
    """The scalar product of two lists of tensors."""
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def conjugate_gradients(product: Any, b: Params, iterations: int) -> Params:
    """x with A x ≈ b, A positive definite and given by its products, from x = 0."""
    x, r, p = [torch.zeros_like(v) for v in b], b, b
    rr = inner(r, r)
    for _ in range(iterations):
        image = product(p)
        bend = inner(p, image)  # not positive where L_support bends down by more than λ + δ: then x stays
        alpha = torch.where(bend > 0, rr / bend.clamp(min=1e-12), 0.0)
        x = [v + alpha * d for v, d in zip(x, p, strict=True)]
        r = [v - alpha * d for v, d in zip(r, image, strict=True)]
        before, rr = rr, inner(r, r)
        p = [v + rr / before.clamp(min=1e-12) * d for v, d in zip(r, p, strict=True)]
    return x
