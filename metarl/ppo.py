"""Proximal policy optimisation of a learner with a memory (Schulman et al. 2017), over whole trials."""

from collections.abc import Callable
from collections.abc import Sequence as Several
from typing import Annotated, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn

from .distributions import Distribution
from .errors import ConfigError
from .normaliser import Normaliser
from .optimizer import Adam, remaining, shared_gradients
from .returns import gae
from .sequence import Sequence
from .settings import STRICT


class Judgement(NamedTuple):
    """What the networks say of a sequence's steps."""

    policy: Distribution  # [L, B]
    value: Tensor  # [L, B], in standard deviations of the return


Judge = Callable[[Sequence], Judgement]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class PpoConfig:
    """Settings of the update, named as in Stable-Baselines3 where it has them."""

    learning_rate: PositiveFloat = 7e-4
    """Adam's step size."""
    anneal: PositiveInt | None = None
    """Meta-updates over which the learning rate falls linearly to 0; none: it stays."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Discount, across a trial's episodes."""
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Decay of generalised advantage estimation, across a trial's episodes."""
    clip_range: PositiveFloat = 0.2
    """How far the probability ratio may move from 1 before it is clipped."""
    epochs: PositiveInt = 2
    """Passes over a meta-batch."""
    minibatches: PositiveInt = 4
    """Parts of a meta-batch, each of whole trials, and each an optimiser's step."""
    entropy_coefficient: NonNegativeFloat = 0.01
    """Weight of the policy's entropy."""
    anneal_entropy: bool = False
    """Whether that weight falls to 0 with the learning rate: exploring is for training alone."""
    value_coefficient: NonNegativeFloat = 0.5
    """Weight of the critic's squared error, in standard deviations of the return."""
    max_grad_norm: PositiveFloat = 0.5
    """Longest gradient."""


class Targets(NamedTuple):
    """What the steps of a sequence turned out to be worth."""

    advantage: Tensor  # [L, B], of mean 0 and standard deviation 1
    value: Tensor  # [L, B], the return, in its standard deviations


def returns_of(trial: Sequence, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns across a whole trial, [L, B] each: an episode's end is not the trial's.

    Nothing follows the trial's last step; steps that were not played are 0.
    """
    value = trial.value * trial.valid
    never = torch.zeros_like(trial.valid)
    advantage = gae(trial.reward, value, torch.zeros_like(value[0]), never, gamma, lam)
    return advantage, advantage + value


def standardised(advantage: Tensor, valid: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the played steps of the whole meta-batch; 0 elsewhere."""
    played = advantage[valid]
    return (advantage - played.mean()) / (played.std(correction=0) + 1e-8) * valid


class Ppo(nn.Module):
    """The optimiser's and the returns' state, and the update itself."""

    def __init__(self, parameters: Several[nn.Parameter], config: PpoConfig, rng: Generator) -> None:
        super().__init__()
        if config.anneal_entropy and not config.anneal:
            raise ConfigError("agent.anneal_entropy is True; allowed without agent.anneal: false")
        self.config, self.parameters_ = config, list(parameters)
        self.adam = Adam(self.parameters_, config.max_grad_norm)
        self.scale = Normaliser(1, rng.device)  # of the returns: large ones starve the policy under clipping
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64, device=rng.device))
        self.updates: Tensor

    @property
    def learning_rate(self) -> float:
        """The present step size."""
        return self.config.learning_rate * remaining(self.updates, self.config.anneal)

    @property
    def entropy_coefficient(self) -> float:
        """The present weight of the entropy."""
        c = self.config
        return c.entropy_coefficient * (remaining(self.updates, c.anneal) if c.anneal_entropy else 1.0)

    def targets(self, trial: Sequence) -> Targets:
        """Advantages and values of a meta-batch; the returns' scale is brought up to date first."""
        c = self.config
        advantage, value = returns_of(trial, c.gamma, c.gae_lambda)
        self.scale.update(value[trial.valid].unsqueeze(-1))
        return Targets(standardised(advantage, trial.valid), self.scale(value))

    def update(self, trial: Sequence, targets: Targets, judge: Judge, rng: Generator) -> dict[str, float]:
        """`epochs` passes over the meta-batch in minibatches of whole trials."""
        c, learners, rate = self.config, trial.reward.shape[1], self.learning_rate
        said = list[Tensor]()
        for _ in range(c.epochs):
            order = torch.randperm(learners, generator=rng, device=rng.device)
            for part in order.tensor_split(min(c.minibatches, learners)):
                gradients, losses = self.gradients(trial, targets, judge, part)
                norm = self.adam.step(gradients, rate)
                said.append(torch.cat([losses, norm.unsqueeze(0)]))
        self.updates += 1
        names = "policy_loss", "value_loss", "entropy", "kl", "clipped", "gradient_norm"
        means = torch.stack(said).mean(0).tolist()
        return {**dict(zip(names, means, strict=True)), "learning_rate": self.learning_rate}

    def gradients(
        self, trial: Sequence, targets: Targets, judge: Judge, part: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """The gradients of a minibatch, and its losses; its learners are shared among the cores."""
        steps = trial.valid[:, part].sum()

        def mean(columns: Tensor) -> tuple[Tensor, Tensor]:
            total, losses = self.loss(trial, targets, judge, columns)
            return total / steps, losses / steps

        return shared_gradients(mean, self.parameters_, part)

    def loss(self, trial: Sequence, targets: Targets, judge: Judge, part: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_b -min(ϱ A, clip(ϱ) A) + ½ c_v (V - R)² - c_e H over played steps with ϱ = π / π_old."""
        c, steps = self.config, trial.learners(part)
        advantage, target = (x[:, part] for x in targets)
        policy, value = judge(steps)
        change = (policy.log_prob(steps.action) - steps.log_prob).masked_fill(~steps.valid, 0.0)
        ratio = change.exp()
        clipped = ratio.clamp(1 - c.clip_range, 1 + c.clip_range)
        parts = (
            -torch.minimum(ratio * advantage, clipped * advantage),
            0.5 * (value - target).square(),
            policy.entropy(),
            ratio.detach() - 1 - change.detach(),  # ≥ 0, its mean is KL(π_old ‖ π)
            (ratio.detach() != clipped.detach()).to(ratio.dtype),
        )
        sums = torch.stack([(x * steps.valid).sum() for x in parts])
        return sums[0] + c.value_coefficient * sums[1] - self.entropy_coefficient * sums[2], sums
