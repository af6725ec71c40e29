"""What running robots are asked to find out: a velocity, a direction of two, or a heading in the plane."""

import math

import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Bounds, Split, TaskParameter, Tasks

from .locomotion import Locomotion
from .tasks import from_splits


def uniform(seed: int, n: int, high: float) -> np.ndarray:
    """n numbers between 0 and `high` as numpy draws them after numpy.random.seed, [n, 1]."""
    return np.random.RandomState(seed).uniform(0.0, high, (n, 1))


class GoalVelocity(Locomotion):
    """Run at a velocity that has to be found out: progress = -|v - v_goal|."""

    fastest: float  # goal velocity in training, from 0
    accepted: float  # the highest goal velocity

    def __init__(self, device: torch.device) -> None:
        self.task_space = (TaskParameter("velocity", "m/s", 0.0, self.accepted, 0.0, self.fastest),)
        super().__init__(device)

    def _pools(self) -> dict[str, np.ndarray]:
        """Training takes any velocity, unless a convention says otherwise."""
        return {"test": uniform(1, 40, self.fastest), "ood": self._beyond(40)}

    def _beyond(self, n: int) -> np.ndarray:
        """n goal velocities above all trained ones, evenly spaced up to the fastest that is accepted."""
        return np.linspace(self.fastest, self.accepted, n + 1)[1:, None]

    def _progress(self) -> Tensor:
        return (self.speed() - self.params[..., 0]).abs_().neg_()

    def _standing(self, params: Tensor) -> Tensor:
        return self.bonus - params[:, 0]

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: stand still. Oracle: accelerate with all the friction that there is, μ g t, up to the goal.

        Hops and swinging limbs apart, nothing passes that; torques cost nothing in it, so that a trained
        policy that knows its task stays below. Where one was published, it stands in `published`.
        """
        goal = tasks.params[:, 0]
        reached = self._grip() * self.dt * torch.arange(1, self.horizon + 1, device=goal.device)
        missing = (goal[:, None] - reached).clamp(min=0).sum(-1)
        return Bounds(self.horizon * self._standing(tasks.params), self.horizon * self.bonus - missing)


class Onwards(Locomotion):
    """Run as fast as possible, one way or another: progress = weight v."""

    weight = 1.0

    def _progress(self) -> Tensor:
        return self.weight * self.speed()

    def _standing(self, params: Tensor) -> Tensor:
        return torch.full_like(params[:, 0], self.bonus)

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: stand still. Oracle: speed up all the way, with all the friction that there is."""
        floor = self.horizon * self._standing(tasks.params)
        return Bounds(floor, floor + self.weight * self._farthest(self._grip()).to(floor))


class Direction(Onwards):
    """Forwards or backwards."""

    shared_splits = True  # there are two tasks
    task_space = (TaskParameter("direction", "", -1.0, 1.0, -1.0, 1.0, values=(-1.0, 1.0)),)
    pooled = False  # whether training, too, takes each of the two once

    def _pools(self) -> dict[str, np.ndarray]:
        both = np.array([[-1.0], [1.0]])
        return {"test": both, "ood": both} | ({"train": both} if self.pooled else {})

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """The two tasks or, in training where they are not pooled, n in random order: half of them each.

        Tosses of a coin would make most meta-batches favour one, which an update then learns at the
        other's cost. Of an odd number, a coin decides which task is one more.
        """
        drawn = from_splits(self.pools, self.task_space, n, split, rng)
        if split in self.pools:
            return drawn
        rank = drawn.params.argsort(0).argsort(0)  # of uniform numbers: a random order
        coin = torch.randint(2, (), generator=rng, device=rank.device)
        return drawn._replace(params=torch.where((rank + coin) % 2 == 0, -1.0, 1.0).to(drawn.params))

    def speed(self) -> Tensor:
        """Forwards or backwards, [N, E]."""
        return self.params[..., 0] * self.velocity[..., 0]


class Heading(Onwards):
    """In a direction of the plane, (cos angle, sin angle).

    The tasks go all the way round, so that there is nothing beyond: ood are other angles again.
    """

    task_space = (TaskParameter("angle", "rad", 0.0, 2 * math.pi, 0.0, 2 * math.pi),)
    train_angles = 0  # pooled; 0: any angle

    def _pools(self) -> dict[str, np.ndarray]:
        angles = uniform(1337, self.train_angles + 70, 2 * math.pi)
        train, test, other = np.split(angles, [-70, -40])
        return {"test": test, "ood": other} | ({"train": train} if len(train) else {})

    def speed(self) -> Tensor:
        """Along the heading, [N, E]."""
        angle = self.params[..., 0]
        return (self.velocity * torch.stack([angle.cos(), angle.sin()], -1)).sum(-1)
