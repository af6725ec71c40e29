"""What all few-shot learners share: examples out of rollouts, answers, losses, and Adam on the meta-loss."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from metarl import STRICT, Act, Adam, ConfigError, Rollout, Step, Trial, remaining


class Examples(NamedTuple):
    """Inputs with their right answers, of N tasks."""

    x: Tensor  # [N, E, *O]
    y: Tensor  # [N, E] labels, or [N, E, K] numbers

    @classmethod
    def of(cls, rollout: Rollout, classes: int) -> "Examples":
        """A round's examples: the observations, and the targets; of (label, class) the label."""
        x, target = rollout.obs[0], rollout.target[0]
        if len(rollout.obs) != 1 or target.shape[:-1] != x.shape[:2]:
            raise ConfigError(
                "family is one without right answers; allowed for a few-shot learner: sinusoid, glyphs, ..."
            )
        return cls(x, target[..., 0] if classes else target)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class LearnerConfig:
    """Settings of the meta-training."""

    learning_rate: PositiveFloat = 1e-3
    """Adam's step size."""
    anneal: PositiveInt | None = None
    """Meta-updates over which the learning rate falls linearly to 0; none: it stays."""
    max_grad_norm: NonNegativeFloat = 10.0
    """Longest gradient."""
    chunk_size: PositiveInt | None = None
    """Tasks computed at a time, which bounds memory; none: 8 on the CPU, all on CUDA."""


class FewShotLearner(nn.Module, ABC):
    """A learner whose actions are answers: classes where the action space is Discrete, else numbers.

    In training mode it does not answer: its meta-update computes the answers anyway, with their gradients,
    and says what they earned.
    """

    config: Any  # a LearnerConfig, of what learns across tasks

    def __init__(self, observation_space: gym.spaces.Box, action_space: Any, rng: Generator) -> None:
        super().__init__()
        self.rng, self.shape = rng, tuple(observation_space.shape)
        discrete = isinstance(action_space, gym.spaces.Discrete)
        self.classes = int(action_space.n) if discrete else 0
        self.outputs = self.classes or int(action_space.shape[0])
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64, device=rng.device))
        self.updates: Tensor
        self.eval()

    @property
    def untrained(self) -> bool:
        """Whether it never had a meta-update, although it needs some."""
        return not self.updates

    def optimise(self) -> None:
        """Make the optimiser, when all parameters exist."""
        self.adam = Adam(list(self.parameters()), self.config.max_grad_norm, eps=1e-8)

    # --- the agent's side of a trial

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """A support set and a query set, at least."""
        if len(rounds) < 2:
            raise ConfigError(f"rounds is {[*rounds]}; allowed: 2 or more, support sets and a query set")

    def act(self, belief: Any, step: Step, explore: bool = True) -> tuple[Act, Any]:
        """Answer; exploration would teach nothing."""
        if self.training:
            answer = torch.zeros_like(step.action)
        else:
            outputs = self.predict(belief, step.obs)
            answer = outputs.argmax(-1) if self.classes else outputs
        nothing = torch.zeros_like(step.reward)
        return Act(answer, nothing, nothing), belief

    @abstractmethod
    def predict(self, belief: Any, x: Tensor) -> Tensor:
        """Logits of the classes, or numbers, [N, E, K], of inputs [N, E, *O]."""

    # --- learning across tasks

    def examples(self, trial: Trial) -> list[Examples]:
        """Each round's examples."""
        return [Examples.of(rollout, self.classes) for rollout in trial.rounds]

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy, or squared error, averaged over examples: outputs [..., E, K] to [...]."""
        if self.classes:
            flat = F.cross_entropy(outputs.flatten(0, -2), y.flatten(), reduction="none")
            return flat.unflatten(0, y.shape).mean(-1)
        return (outputs - y).square().mean((-2, -1))

    def earned(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The return of answers: the share that is right, or the negative squared error, [...]."""
        if self.classes:
            return (outputs.argmax(-1) == y).to(outputs.dtype).mean(-1)
        return -(outputs - y).square().mean((-2, -1))

    @property
    def learning_rate(self) -> float:
        """The present step size."""
        return self.config.learning_rate * remaining(self.updates, self.config.anneal)

    def descend(self, gradients: Sequence[Tensor]) -> Tensor:
        """A meta-update's step; the gradient's norm."""
        norm = self.adam.step(gradients, self.learning_rate)
        self.updates += 1
        return norm
