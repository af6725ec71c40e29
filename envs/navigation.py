"""Goal navigation: a point on the plane that is not told where to go, after four published conventions.

The policy acts in [-1, 1]², and a step moves the point by at most 0.1 along each axis.
"""

import math
from abc import ABC, abstractmethod

import gymnasium as gym
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Bounds, Outcome, Published, Split, TaskParameter, Tasks

from .tasks import beyond, from_splits

STEP = 0.1  # length units a step along each axis


def dense_reward(distance: Tensor) -> Tensor:
    """Minus the distance to the goal, after the move."""
    return -distance


def sparse_reward(distance: Tensor, radius: float = 0.2) -> Tensor:
    """1 - distance within the goal's radius, else 0."""
    return (1 - distance) * (distance <= radius)


class Navigation(ABC):
    """The dense families: the reward is minus the distance to a goal (x, y)."""

    horizon: int = 100
    start: float = 0.0  # half-width of the square of starting points
    arrival: float | None = None  # the episode ends within this distance along both axes
    extent: float = 0.5  # half-width of the square of goals in training
    reach: float = 1.0  # half-width of the square of goals that are accepted
    shared_splits = False
    published: tuple[Published, ...] = ()
    view = "plane"  # how a report draws an episode: the first two observations are a position

    name: str
    summary: str

    def __init__(self, device: torch.device) -> None:
        self.device = device
        furthest = np.full(2, self.start + 1.01 * STEP * self.horizon, np.float32)
        self.observation_space = gym.spaces.Box(-furthest, furthest)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,))
        self.task_space = self._task_space()
        pools = {split: torch.tensor(pool, device=device) for split, pool in self._pools().items()}
        self.pools = {split: pool.to(torch.get_default_dtype()) for split, pool in pools.items()}

    def _task_space(self) -> tuple[TaskParameter, ...]:
        sides = (-self.reach, self.reach, -self.extent, self.extent)
        return TaskParameter("goal_x", "units", *sides), TaskParameter("goal_y", "units", *sides)

    @abstractmethod
    def _pools(self) -> dict[str, np.ndarray]:
        """The fixed pools, by split, [M] or [M, P]."""

    def goals(self, tasks: Tasks) -> Tensor:
        """The goal of each task on the plane, [N, 2]."""
        return tasks.params

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """From the split's pool or, where it has none, uniform over the trained range."""
        return from_splits(self.pools, self.task_space, n, split, rng)

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """All points at the origin or, where the convention says so, anywhere in the starting square."""
        self._position = torch.empty(len(tasks.ids), episodes, 2, device=self.device)
        return self.restart(self._position.new_ones(self._position.shape[:2], dtype=torch.bool), tasks, rng)

    def restart(self, ended: Tensor, tasks: Tasks, rng: Generator) -> Tensor:
        """Start the episodes that a mask [N, E] marks anew; all observations, [N, E, 2].

        The tasks of all other episodes have to be those that they are in.
        """
        self._goal = self.goals(tasks).unsqueeze(1)  # [N, 1, 2]
        u = torch.rand(*ended.shape, 2, generator=rng, device=self.device)
        start = (2 * u - 1) * self.start if self.start else torch.zeros_like(u)
        self._position = torch.where(ended[..., None], start, self._position)
        return self._position

    def step(self, action: Tensor) -> Outcome:
        """Move, then measure the distance to the goal."""
        self._position = self._position + STEP * action.clamp(-1, 1)
        offset = self._position - self._goal
        distance = offset.norm(dim=-1)
        terminated = torch.zeros_like(distance, dtype=torch.bool)
        if self.arrival is not None:
            terminated = (offset.abs() < self.arrival).all(-1)
        reward, target = self._rewards(distance)
        return Outcome(self._position, reward, terminated, target)

    def _rewards(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """What is scored, and what training may read besides: nothing."""
        return dense_reward(distance), torch.zeros_like(distance)

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: stay put. Oracle: full speed along each axis, which is nearest at every moment."""
        return Bounds(self._earns(tasks, 0.0), self._earns(tasks, STEP))

    def _earns(self, tasks: Tasks, speed: float) -> Tensor:
        """The return of going straight to the goal, averaged over the starting points, [N].

        Step by step as in the world: sums of 0.1 are not multiples of it, and a radius is sharp.
        """
        goal, position = self.goals(tasks)[:, None], self._starts()  # [N, 1, 2] and [S, 2]
        total = torch.zeros(len(goal), len(position), device=self.device)
        over = torch.zeros_like(total, dtype=torch.bool)
        for _ in range(self.horizon):
            position = position + (goal - position).clamp(-speed, speed)  # [N, S, 2]
            offset = position - goal
            total += self._rewards(offset.norm(dim=-1))[0].masked_fill(over, 0)
            if self.arrival is not None:
                over |= (offset.abs() < self.arrival).all(-1)
        return total.mean(1)

    def _starts(self) -> Tensor:
        """The midpoints of a grid over the starting square, [S, 2], over which returns are averaged."""
        if not self.start:
            return torch.zeros(1, 2, device=self.device)
        side = (torch.arange(32, device=self.device) + 0.5) / 16 - 1
        return self.start * torch.cartesian_prod(side, side)


class NavigationMaml2017(Navigation):
    """Finn et al. 2017: PointEnvRandGoal of cbfinn/maml_rl with its `normalize` wrapper."""

    name = "navigation/maml2017"
    summary = "2-D navigation to a goal in [-0.5, 0.5]², dense reward, 100 steps (Finn et al. 2017)"
    arrival = 0.01
    published = (
        Published("MAML", (-40.41, -11.68, -3.33, -3.23), "cbfinn/maml_rl, icml/*.pkl"),
        Published("pretrained", (-40.81, -19.73, -11.72, -8.47), "cbfinn/maml_rl, icml/*.pkl"),
        Published("random init", (-82.66, -57.96, -53.84, -46.81), "cbfinn/maml_rl, icml/*.pkl"),
        Published("oracle policy", (-2.29,), "cbfinn/maml_rl, icml/*.pkl"),
    )

    def _pools(self) -> dict[str, np.ndarray]:
        test = np.random.RandomState(1).uniform(-0.5, 0.5, (40, 2))
        return {"test": test, "ood": beyond(self.extent, self.reach, 40, seed=2)}


class NavigationPearl2019(Navigation):
    """Rakelly et al. 2019: point-robot of katerakelly/oyster, dense, from a random start."""

    name = "navigation/pearl2019"
    summary = "2-D navigation to a goal in [-1, 1]², dense, random start, 20 steps (Rakelly et al. 2019)"
    horizon = 20
    start = 1.0
    extent = 1.0
    reach = 1.5

    def _pools(self) -> dict[str, np.ndarray]:
        goals = np.random.RandomState(1337).uniform(-1.0, 1.0, (100, 2))
        ood = beyond(self.extent, self.reach, 20, seed=2)
        return {"train": goals[:80], "test": goals[80:], "ood": ood}


class SparseNavigation(Navigation):
    """The sparse families: goals on the unit half-circle, a task being the angle; the rest is beyond."""

    def _task_space(self) -> tuple[TaskParameter, ...]:
        return (TaskParameter("angle", "rad", 0.0, 2 * math.pi, 0.0, math.pi),)

    def goals(self, tasks: Tasks) -> Tensor:
        """(cos, sin) of each angle, [N, 2]."""
        return torch.cat([tasks.params.cos(), tasks.params.sin()], -1)

    def _rewards(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Sparse for scoring and for training alike."""
        return sparse_reward(distance), torch.zeros_like(distance)

    def _pools(self) -> dict[str, np.ndarray]:
        test = np.random.RandomState(1).uniform(0, math.pi, (40, 1))
        return {"test": test, "ood": self._other_half(40)}

    @staticmethod
    def _other_half(n: int) -> np.ndarray:
        return math.pi * (1 + (np.arange(n)[:, None] + 0.5) / n)


class SparseNavigationPearl2019(SparseNavigation):
    """Rakelly et al. 2019: sparse-point-robot of katerakelly/oyster; training may read the dense reward."""

    name = "navigation-sparse/pearl2019"
    summary = "2-D navigation to the unit half-circle, sparse, 20 steps (Rakelly et al. 2019)"
    horizon = 20

    def _pools(self) -> dict[str, np.ndarray]:
        angles = np.linspace(0, math.pi, 100)[:, None]
        np.random.RandomState(1337).shuffle(angles)
        return {"train": angles[:80], "test": angles[80:], "ood": self._other_half(20)}

    def _rewards(self, distance: Tensor) -> tuple[Tensor, Tensor]:
        """The sparse reward is context and score; the target is the dense one."""
        return sparse_reward(distance), dense_reward(distance)


class SparseNavigationVaribad2020(SparseNavigation):
    """Zintgraf et al. 2020: SparsePointEnv of lmzintgraf/varibad, angles uniform over (0, π)."""

    name = "navigation-sparse/varibad2020"
    summary = "2-D navigation to the unit half-circle, sparse, 100 steps (Zintgraf et al. 2020)"
