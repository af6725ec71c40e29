"""Few-shot regression: a curve has to be guessed from a few of its points (Finn et al. 2017, section 5.1).

An example is an episode of one step: the observation is x, the action the prediction of y, the target y.
"""

from abc import ABC, abstractmethod

import gymnasium as gym
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Bounds, Outcome, Published, Split, TaskParameter, Tasks

from ..tasks import from_splits

POOL = 1000  # tasks to test on
REACH = 5.0  # |x| at most
LIMIT = 20.0  # |y| at most, beyond all that any task asks for


class Regression(ABC):
    """Curves with two parameters; the reward is the negative squared error."""

    horizon = 1
    shared_splits = False
    view = "curve"
    published: tuple[Published, ...] = ()
    noise = 0.0  # standard deviation of the targets about the curve

    name: str
    summary: str
    task_space: tuple[TaskParameter, ...]

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.observation_space = gym.spaces.Box(-REACH, REACH, (1,))
        self.action_space = gym.spaces.Box(-LIMIT, LIMIT, (1,))
        draws = np.random.RandomState(1).uniform(size=(2, POOL, 2))
        inside = np.array([(p.train_low, p.train_high) for p in self.task_space]).T
        pools = {"test": inside[0] + (inside[1] - inside[0]) * draws[0], "ood": self.beyond(draws[1])}
        dtype = torch.get_default_dtype()
        self.pools = {split: torch.tensor(pool, device=device, dtype=dtype) for split, pool in pools.items()}

    @abstractmethod
    def beyond(self, u: np.ndarray) -> np.ndarray:
        """Tasks out of distribution, from numbers uniform over [0, 1], [M, 2]."""

    @abstractmethod
    def curve(self, params: Tensor, x: Tensor) -> Tensor:
        """y without noise; parameters [..., 2] and x [...] to [...]."""

    @abstractmethod
    def power(self, params: Tensor) -> Tensor:
        """The mean of y² over x, [N]."""

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """From the split's pool or, in training, uniform over the trained range."""
        return from_splits(self.pools, self.task_space, n, split, rng)

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """Inputs x, uniform over [-5, 5], [N, E, 1]."""
        return self.restart(torch.ones(len(tasks.ids), episodes, device=self.device), tasks, rng)

    def restart(self, ended: Tensor, tasks: Tasks, rng: Generator) -> Tensor:
        """Draw the inputs that a mask [N, E] marks anew; all of them, [N, E, 1]."""
        before = getattr(self, "_x", ended)
        x = REACH * (2 * torch.rand(ended.shape, generator=rng, device=self.device) - 1)
        self._x = x if before.shape != x.shape else torch.where(ended.bool(), x, before)
        noise = (
            self.noise * torch.randn(ended.shape, generator=rng, device=self.device) if self.noise else 0.0
        )
        self._y = self.curve(tasks.params[:, None], self._x) + noise
        return self._x[..., None]

    def step(self, action: Tensor) -> Outcome:
        """Judge predictions [N, E, 1] by the answers, which are the targets, [N, E, 1]."""
        error, nothing = action[..., 0] - self._y, torch.zeros_like(self._y)
        return Outcome(nothing[..., None], -error.square(), nothing.bool(), self._y[..., None])

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: to say 0. Oracle: the curve itself, which misses the noise."""
        noise = torch.full_like(tasks.params[:, 0], self.noise**2)
        return Bounds(-self.power(tasks.params) - noise, -noise)


class Sinusoid(Regression):
    """y = A sin(x - φ) with A in [0.1, 5] and φ in [0, π]; out of distribution A is in [5, 8]."""

    name = "sinusoid/maml2017"
    summary = "sine waves of amplitude 0.1 to 5 and phase 0 to π, from a few points (Finn et al. 2017)"
    task_space = (
        TaskParameter("amplitude", "", 0, 10, 0.1, 5),
        TaskParameter("phase", "rad", 0, 3.1416, 0, np.pi),
    )

    def beyond(self, u: np.ndarray) -> np.ndarray:
        """Taller waves."""
        return np.stack([5 + 3 * u[:, 0], np.pi * u[:, 1]], 1)

    def curve(self, params: Tensor, x: Tensor) -> Tensor:
        """A sin(x - φ)."""
        amplitude, phase = params.unbind(-1)
        return amplitude * torch.sin(x - phase)

    def power(self, params: Tensor) -> Tensor:
        """A² (½ - sin(2r) cos(2φ) / 4r) for x uniform over [-r, r]."""
        amplitude, phase = params.unbind(-1)
        return amplitude.square() * (0.5 - np.sin(2 * REACH) * torch.cos(2 * phase) / (4 * REACH))


class Linear(Regression):
    """y = a x + b + ε, a and b in [-2, 2], ε of standard deviation 0.5; beyond, |a| is in [2, 3]."""

    name = "linear/noisy"
    summary = "straight lines with noise, slope and intercept in [-2, 2], from a few points"
    noise = 0.5
    task_space = (
        TaskParameter("slope", "", -3, 3, -2, 2),
        TaskParameter("intercept", "", -3, 3, -2, 2),
    )

    def beyond(self, u: np.ndarray) -> np.ndarray:
        """Steeper lines, up and down."""
        slope = 4 * u[:, 0] - 2
        return np.stack([np.where(slope < 0, -2.0, 2.0) + slope / 2, 4 * u[:, 1] - 2], 1)

    def curve(self, params: Tensor, x: Tensor) -> Tensor:
        """a x + b."""
        slope, intercept = params.unbind(-1)
        return slope * x + intercept

    def power(self, params: Tensor) -> Tensor:
        """a² r² / 3 + b² for x uniform over [-r, r]."""
        slope, intercept = params.unbind(-1)
        return slope.square() * REACH**2 / 3 + intercept.square()
