"""What is known to do well in bandits: seven ways to choose an arm, each for a batch of learners.

All know how rewards are distributed, and start from the families' prior: an arm's mean reward is uniform over
[0, 1]. They differ in `score`: an arm with the largest is pulled.
"""

from abc import abstractmethod
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from metarl import STRICT, Act, ConfigError, Step

from .gittins import gittins_indices, place
from .solver import Solver

PRIOR_MEAN = 0.5
TWO_SIGMA = {"bernoulli": 1.0, "gaussian": 2.0}  # twice the largest standard deviation that a reward can have
PRIOR_PULLS = {
    "bernoulli": 2.0,
    "gaussian": 12.0,
}  # Beta(1, 1); N(0.5, 1/12) where rewards have a variance of 1


class Counts(NamedTuple):
    """What has happened to each learner."""

    pulls: Tensor  # [N, E, A], of each arm
    total: Tensor  # [N, E, A], the rewards of each arm, added up
    begun: Tensor  # [N, E], 0 before the first pull of all, which no reward precedes


def counted(belief: Counts, step: Step) -> Counts:
    """The counts with the pull that came before this step."""
    arm = step.action[..., None]
    pulls = belief.pulls.scatter_add(-1, arm, belief.begun[..., None])
    total = belief.total.scatter_add(-1, arm, (belief.begun * step.reward)[..., None])
    return Counts(pulls, total, torch.ones_like(belief.begun))


class BanditSolver(Solver[Counts]):
    """Counts, and pulls an arm of the largest score; without exploration, one of the largest mean."""

    plays = ("bandit/",)

    @dataclass(frozen=True, config=STRICT)
    class Config(Solver.Config):
        """What a solver knows of its bandit."""

        reward: Literal["bernoulli", "gaussian"] = "bernoulli"
        """How rewards are distributed: 0 or 1, or with a standard deviation of 1."""

    config: Config

    @classmethod
    def settings_for(cls, family: str) -> dict[str, Any]:
        """The distribution of rewards is in the family's name, as in `bandit/gaussian-k5`."""
        return {"reward": "gaussian" if family.startswith("bandit/gaussian") else "bernoulli"}

    def begin(self, tasks: int, episodes: int) -> Counts:
        """No arm was pulled."""
        zero = torch.zeros(tasks, episodes, self.actions, device=self.rng.device)
        return Counts(zero, zero, zero[..., 0])

    def act(self, belief: Counts, step: Step, explore: bool) -> tuple[Act, Counts]:
        """Count the last pull, then choose the next."""
        belief = counted(belief, step)
        score = self.score(belief) if explore else self.mean(belief)
        return self.answer(self.any_best(score)), belief

    @abstractmethod
    def score(self, belief: Counts) -> Tensor:
        """How much there is to a pull of each arm, [N, E, A]."""

    def weight(self, belief: Counts) -> Tensor:
        """How many pulls' worth is known of each arm, the prior's among them, [N, E, A]."""
        return PRIOR_PULLS[self.config.reward] + belief.pulls

    def mean(self, belief: Counts) -> Tensor:
        """The expected reward of each arm after what has happened, [N, E, A]."""
        prior = PRIOR_PULLS[self.config.reward]
        return (prior * PRIOR_MEAN + belief.total) / (prior + belief.pulls)


class Greedy(BanditSolver):
    """The arm of the largest posterior mean, always."""

    def score(self, belief: Counts) -> Tensor:
        """E[μ_a]."""
        return self.mean(belief)


class EpsilonGreedy(BanditSolver):
    """Any arm with probability ε, else the one of the largest posterior mean."""

    @dataclass(frozen=True, config=STRICT)
    class Config(BanditSolver.Config):
        """How often it explores."""

        epsilon: Annotated[float, Field(ge=0, le=1)] = 0.02
        """Probability of a pull of any arm, each as likely as the others."""

    config: Config

    def score(self, belief: Counts) -> Tensor:
        """E[μ_a], or a random number for each arm."""
        mean, device = self.mean(belief), self.rng.device
        explores = torch.rand(belief.begun.shape, generator=self.rng, device=device) < self.config.epsilon
        anything = torch.rand(mean.shape, generator=self.rng, device=device)
        return torch.where(explores[..., None], anything, mean)


class Ucb1(BanditSolver):
    """Auer, Cesa-Bianchi and Fischer 2002, "Finite-time Analysis of the Multiarmed Bandit Problem".

    Theirs is c = 1, for rewards in [0, 1], after one pull of every arm. Here the prior stands for these first
    pulls, and c may be chosen, as in the RL² paper (Duan et al. 2016): far better where pulls are few.
    """

    @dataclass(frozen=True, config=STRICT)
    class Config(BanditSolver.Config):
        """How wide the bounds are."""

        c: NonNegativeFloat = 0.2
        """Multiple of the width that Auer et al. prove their bound for."""

    config: Config

    def score(self, belief: Counts) -> Tensor:
        """E[μ_a] + 2 σ c √(2 ln t / T_a), at pull t = 1, 2, ..."""
        t, scale = 1 + belief.pulls.sum(-1, keepdim=True), TWO_SIGMA[self.config.reward] * self.config.c
        return self.mean(belief) + scale * (2 * t.log() / self.weight(belief)).sqrt()


class Thompson(BanditSolver):
    """Thompson 1933: the best arm of a sample of the posterior, and so with the probability that it is."""

    def score(self, belief: Counts) -> Tensor:
        """μ_a ~ Beta(1 + wins, 1 + losses), or μ_a ~ N(E[μ_a], 1 / T_a)."""
        if self.config.reward == "gaussian":
            noise = torch.randn(belief.pulls.shape, generator=self.rng, device=self.rng.device)
            return self.mean(belief) + noise / self.weight(belief).sqrt()
        shapes = torch.stack([1 + belief.total, 1 + belief.pulls - belief.total])
        x, y = torch._standard_gamma(shapes, generator=self.rng)
        return x / (x + y)


class OptimisticThompson(Thompson):
    """May et al. 2012, "Optimistic Bayesian Sampling": Thompson sampling that never thinks less of an arm."""

    def score(self, belief: Counts) -> Tensor:
        """max(μ_a, E[μ_a]), μ_a sampled from the posterior."""
        return torch.maximum(super().score(belief), self.mean(belief))


class Gittins(BanditSolver):
    """The arm of the largest finite-horizon Gittins index, for rewards of 0 or 1: nearly Bayes-optimal.

    `episodes` is the number of pulls in all. The table is made at the first one, and takes seconds for 500.
    """

    plays = ("bandit/bernoulli",)

    @dataclass(frozen=True, config=STRICT)
    class Config(BanditSolver.Config):
        """There is no index for other rewards here."""

        reward: Literal["bernoulli"] = "bernoulli"
        """How rewards are distributed: 0 or 1."""
        cells: PositiveInt = 100
        """Precision of the index: it is too large by a small part of 1 / cells."""

    config: Config

    def score(self, belief: Counts) -> Tensor:
        """G(wins, losses, pulls that are left)."""
        n, t = self.config.episodes, belief.pulls.sum(-1, keepdim=True).long()
        if t.max() >= n:
            raise ConfigError(f"agent.episodes is {n}; allowed: all pulls of a trial, and there are more")
        where = place(t, belief.pulls.long(), belief.total.long())
        return gittins_indices(n, self.config.cells, where.device)[where]
