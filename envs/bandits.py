"""Multi-armed bandits, as in Duan et al. 2016, "RL²": an episode is one pull, and a trial many of them.

The mean rewards of a task's arms are uniform over [0, 1]. Nothing is observed but the reward: the observation
is always 0.
"""

from abc import ABC, abstractmethod

import gymnasium as gym
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Bounds, Outcome, Published, Split, TaskParameter, Tasks

from .tasks import from_splits

POOL = 1000  # tasks to test on


class Bandit(ABC):
    """k arms, a task being their mean rewards; out of distribution they are all within 0.05 of a half."""

    horizon = 1
    shared_splits = False
    published: tuple[Published, ...] = ()

    name: str
    summary: str
    arms: int

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
        self.action_space = gym.spaces.Discrete(self.arms)
        self.task_space = tuple(TaskParameter(f"arm_{a}", "", 0, 1, 0, 1) for a in range(self.arms))
        draws = np.random.RandomState(1).uniform(size=(2, POOL, self.arms))
        pools = {"test": draws[0], "ood": 0.45 + 0.1 * draws[1]}
        dtype = torch.get_default_dtype()
        self.pools = {split: torch.tensor(pool, device=device, dtype=dtype) for split, pool in pools.items()}

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """From the split's pool or, in training, uniform over [0, 1] for each arm."""
        return from_splits(self.pools, self.task_space, n, split, rng)

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """One more pull of each; zeros, [N, E, 1]."""
        return self.restart(torch.ones(len(tasks.ids), episodes, device=self.device), tasks, rng)

    def restart(self, ended: Tensor, tasks: Tasks, rng: Generator) -> Tensor:
        """Start the episodes that a mask [N, E] marks anew: an episode has no state, only its task."""
        self._means, self._rng = tasks.params[:, None].expand(-1, ended.shape[1], -1), rng
        return torch.zeros(*ended.shape, 1, device=self.device)

    def step(self, action: Tensor) -> Outcome:
        """Pull an arm of each, [N, E]; the target is the arm's mean, which is a reward without noise."""
        mean = self._means.gather(-1, action[..., None])[..., 0]
        nothing = torch.zeros_like(mean)
        return Outcome(nothing[..., None], self._reward(mean), nothing.bool(), mean)

    @abstractmethod
    def _reward(self, mean: Tensor) -> Tensor:
        """Draw rewards of these means, [N, E]."""

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: any arm. Oracle: the best one."""
        return Bounds(tasks.params.mean(-1), tasks.params.amax(-1))


class BernoulliBandit(Bandit):
    """Rewards are 1 or 0."""

    def _reward(self, mean: Tensor) -> Tensor:
        """1 with probability `mean`."""
        chance = torch.rand(mean.shape, generator=self._rng, device=self.device)
        return (chance < mean).to(mean.dtype)


class GaussianBandit(Bandit):
    """Rewards have a standard deviation of 1."""

    def _reward(self, mean: Tensor) -> Tensor:
        """`mean` and noise, N(0, 1)."""
        return mean + torch.randn(mean.shape, generator=self._rng, device=self.device)


class BernoulliBandit5(BernoulliBandit):
    """Duan et al. 2016, 5 arms."""

    name = "bandit/bernoulli-k5"
    summary = (
        "5 arms that pay 0 or 1 with hidden probabilities in [0, 1], an episode a pull (Duan et al. 2016)"
    )
    arms = 5


class BernoulliBandit10(BernoulliBandit):
    """Duan et al. 2016, 10 arms."""

    name = "bandit/bernoulli-k10"
    summary = (
        "10 arms that pay 0 or 1 with hidden probabilities in [0, 1], an episode a pull (Duan et al. 2016)"
    )
    arms = 10


class BernoulliBandit50(BernoulliBandit):
    """Duan et al. 2016, 50 arms."""

    name = "bandit/bernoulli-k50"
    summary = (
        "50 arms that pay 0 or 1 with hidden probabilities in [0, 1], an episode a pull (Duan et al. 2016)"
    )
    arms = 50


class GaussianBandit5(GaussianBandit):
    """5 arms, with rewards as in pytorch-maml-rl's Gaussian bandits."""

    name = "bandit/gaussian-k5"
    summary = "5 arms that pay N(mean, 1) with hidden means in [0, 1], an episode a pull"
    arms = 5


class GaussianBandit10(GaussianBandit):
    """10 arms, with rewards as in pytorch-maml-rl's Gaussian bandits."""

    name = "bandit/gaussian-k10"
    summary = "10 arms that pay N(mean, 1) with hidden means in [0, 1], an episode a pull"
    arms = 10


class GaussianBandit50(GaussianBandit):
    """50 arms, with rewards as in pytorch-maml-rl's Gaussian bandits."""

    name = "bandit/gaussian-k50"
    summary = "50 arms that pay N(mean, 1) with hidden means in [0, 1], an episode a pull"
    arms = 50
