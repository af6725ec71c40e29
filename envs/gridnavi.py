"""GridNavi: one cell of a small grid pays, and which one that is is found out by walking there."""

import gymnasium as gym
import torch
from torch import Generator, Tensor

from metarl import Bounds, Outcome, Published, Split, TaskParameter, Tasks

from .tasks import from_splits

SIZE = 5  # cells along a side
MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # stay, up, right, down, left, as (x, y)
ON_GOAL, ELSEWHERE = 1.0, -0.1  # what the cell after a move pays


class GridNaviVaribad2020:
    """Zintgraf et al. 2020: GridNavi of lmzintgraf/varibad, environments/navigation/gridworld.py.

    An episode starts in the corner (0, 0), and reaching the goal does not end it. The goal is any cell but
    the corner and the three around it. These 21 tasks are all there are, so every split has them all.
    """

    name = "gridnavi/varibad2020"
    summary = "5x5 grid with a hidden goal cell, 5 discrete actions, 15 steps (Zintgraf et al. 2020)"
    horizon = 15
    shared_splits = True
    published: tuple[Published, ...] = ()
    view = "plane"  # how a report draws an episode: the two observations are a position

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.observation_space = gym.spaces.Box(0.0, SIZE - 1.0, (2,))
        self.action_space = gym.spaces.Discrete(len(MOVES))
        cells = tuple(float(i) for i in range(SIZE))
        sides = (0.0, SIZE - 1.0, 0.0, SIZE - 1.0, cells)
        self.task_space = TaskParameter("goal_x", "cells", *sides), TaskParameter("goal_y", "cells", *sides)
        pool = torch.tensor([(x, y) for x in cells for y in cells if max(x, y) > 1], device=device)
        self.pools = dict.fromkeys(("train", "test", "ood"), pool)
        self._moves = torch.tensor(MOVES, dtype=pool.dtype, device=device)  # [A, 2]

    def goals(self, tasks: Tasks) -> Tensor:
        """The goal of each task on the plane, [N, 2]."""
        return tasks.params

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """From the 21 tasks, whatever the split."""
        return from_splits(self.pools, self.task_space, n, split, rng)

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """Everyone in the corner (0, 0)."""
        self._goal = self.goals(tasks)[:, None]  # [N, 1, 2]
        self._position = self._goal.new_zeros(len(tasks.ids), episodes, 2)
        return self._position

    def restart(self, ended: Tensor, tasks: Tasks, rng: Generator) -> Tensor:
        """Start the episodes that a mask [N, E] marks anew; all observations, [N, E, 2].

        The tasks of all other episodes have to be those that they are in.
        """
        self._goal = self.goals(tasks)[:, None]
        self._position = self._position.masked_fill(ended[..., None], 0.0)
        return self._position

    def step(self, action: Tensor) -> Outcome:
        """Move, against a wall not at all, and be paid for the cell that is reached."""
        self._position = (self._position + self._moves[action]).clamp(0, SIZE - 1)
        there = (self._position == self._goal).all(-1)
        reward = self._position.new_full(there.shape, ELSEWHERE).masked_fill(there, ON_GOAL)
        return Outcome(self._position, reward, torch.zeros_like(there), torch.zeros_like(reward))

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: all actions alike, in expectation. Oracle: the shortest way to the goal, and stay."""
        goal = self.goals(tasks)
        x, y = goal.long().unbind(-1)
        visits = self._random_visits()[x, y]
        away = (goal.sum(-1) - 1).clamp(min=0)  # steps that end before the goal, at |x| + |y| from the start
        return Bounds(self._pays(visits), self._pays(self.horizon - away))

    def _pays(self, visits: Tensor) -> Tensor:
        """The return of an episode, of which so many steps end on the goal."""
        return ON_GOAL * visits + ELSEWHERE * (self.horizon - visits)

    def _random_visits(self) -> Tensor:
        """How many steps of an episode of uniformly random actions end in each cell, [SIZE, SIZE]."""
        cells = torch.cartesian_prod(*[torch.arange(SIZE, device=self.device)] * 2)
        reached = (cells[:, None] + self._moves.long()).clamp(0, SIZE - 1)  # [S, A, 2]
        place = reached[..., 0] * SIZE + reached[..., 1]
        chain = torch.nn.functional.one_hot(place, SIZE**2).double().mean(1)  # [S, S], from and to
        here = torch.zeros_like(chain[0])
        here[0] = 1
        visits = torch.zeros_like(here)
        for _ in range(self.horizon):
            here = here @ chain
            visits = visits + here
        return visits.to(self._moves.dtype).view(SIZE, SIZE)
