"""MAML: Finn et al. 2017, "Model-Agnostic Meta-Learning", algorithm 2.

Minimise over θ the mean over tasks of L_query(φ), φ = θ - α ∇L_support(θ), through the gradient step.
"""

from pydantic.dataclasses import dataclass

from metarl import STRICT

from .gradient import GradientConfig, GradientLearner, Params


class Maml(GradientLearner):
    """A network whose initial parameters are learned so that a few gradient steps adapt them."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(GradientConfig):
        """Settings, named as in the paper."""

    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """φ ← φ - α ∇L(φ)."""
        return [p - self.config.inner_lr * g for p, g in zip(params, gradient, strict=True)], memory
