"""The Bayes-optimal policy of GridNavi (Zintgraf et al. 2020, "VariBAD", section 5.1), found exactly.

Before the goal is found all that is learned is which cells are not it, so what is done until then is a plan
fixed beforehand. From then on the best is to go there by a shortest way in every episode, and to stay. In a
trial of K episodes of H steps, a goal d steps from the start, first reached by step s of episode e, pays

    w = (H - s + 1) + (K - e) (H - d + 1)

times, and each time as much. All goals are equally likely, so the plan maximises the sum of w over them: a
search over cells and sets of visited goals.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from metarl import STRICT, Act, ConfigError, Step

from .solver import Solver

Array = NDArray[np.int64]
MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # stay, up, right, down, left, as (x, y)
STAY, UP, RIGHT, DOWN, LEFT = range(5)
BEAM = 1000  # ways that are kept at each step of the search for a good plan


class Plan(NamedTuple):
    """What to do in a trial as long as the goal is not found."""

    actions: tuple[int, ...]  # one for each of its K · H steps
    visits: int  # how many steps of the trial end on the goal, summed over all possible goals


class Grid:
    """A square grid of `size` cells a side, cell (x, y) being number size · x + y; the start is number 0."""

    def __init__(self, size: int) -> None:
        x, y = np.divmod(np.arange(size**2), size)
        neighbours = [np.clip(x + dx, 0, size - 1) * size + np.clip(y + dy, 0, size - 1) for dx, dy in MOVES]
        self.moves: Array = np.stack(neighbours, -1)  # [C, A], where an action leads
        self.distance: Array = x + y  # [C], from the start
        self.goals: Array = np.flatnonzero(np.maximum(x, y) > 1)  # [G], all but the corner of four
        self.bit = np.zeros(size**2, np.int64)  # [C], a goal's bit in a set of goals
        self.bit[self.goals] = 1 << np.arange(len(self.goals))
        towards = [
            (x[:, None] < x, RIGHT),
            (x[:, None] > x, LEFT),
            (y[:, None] < y, UP),
            (y[:, None] > y, DOWN),
        ]
        where, action = zip(*towards, strict=True)
        self.way: Array = np.select(where, action, STAY)  # [C, C], the first step of a shortest way


@cache
def best_plan(size: int, horizon: int, episodes: int) -> Plan:
    """The optimum: a good plan first, then all ways that may be at least as good."""
    good = search(Grid(size), horizon, episodes, width=BEAM)
    return search(Grid(size), horizon, episodes, least=good.visits)


def search(grid: Grid, horizon: int, episodes: int, least: int = 0, width: int | None = None) -> Plan:
    """Step by step, the best way to each (cell, set of visited goals), unless it must end below `least`.

    Without a `width` it is exact. With one, only so many ways are kept, those whose bounds are the highest.
    """
    cell = seen = visits = np.zeros(1, np.int64)
    taken = []
    again: Array = np.maximum(horizon + 1 - grid.distance, 0)  # [C], visits in an episode with the goal known
    for step in range(episodes * horizon):
        episode, over = divmod(step, horizon)
        later, left = episodes - 1 - episode, horizon - over  # episodes after this one, steps in this one
        start = cell if over else np.zeros_like(cell)
        cell, before = grid.moves[start].ravel(), seen.repeat(len(MOVES))
        seen = before | grid.bit[cell]
        visits = visits.repeat(len(MOVES)) + (seen != before) * (left + later * again[cell])
        bound = visits + still_to_come(grid, seen, left - 1, later * again[grid.goals])
        kept = best_of_each(cell << len(grid.goals) | seen, visits, bound >= least)
        if width:
            kept = kept[np.argsort(-bound[kept], kind="stable")[:width]]
        taken.append(kept)
        cell, seen, visits = cell[kept], seen[kept], visits[kept]
    return Plan(retrace(taken, int(visits.argmax())), int(visits.max()))


def still_to_come(grid: Grid, seen: Array, left: int, later: Array) -> Array:
    """A bound on what the goals outside the sets `seen` [W] still pay: `later` [G] is that of later episodes.

    A goal d steps from the start pays at most H - d + 1 times in any episode after this one, whenever it is
    found. In this one, no two goals are found by the same step: they pay `left`, `left` - 1, ... times.
    """
    unseen = ~(seen[:, None] >> np.arange(len(grid.goals))) & 1
    now = np.minimum(unseen.sum(1), left)  # goals that can still be found in this episode
    return unseen @ later + now * (2 * left + 1 - now) // 2


def best_of_each(state: Array, visits: Array, allowed: NDArray[np.bool_]) -> Array:
    """Of the ways to each state, the place of one with the most visits; [W] -> [at most W]."""
    places = np.flatnonzero(allowed)
    order = places[np.lexsort((-visits[places], state[places]))]
    return order[np.diff(state[order], prepend=-1) != 0]


def retrace(taken: Sequence[Array], last: int) -> tuple[int, ...]:
    """The actions on the way to place `last`: of each step's ways, number w is action w % A after w // A."""
    actions = []
    for kept in reversed(taken):
        last, action = divmod(int(kept[last]), len(MOVES))
        actions.append(action)
    return tuple(reversed(actions))


class Belief(NamedTuple):
    """Which cells may be the goal, all alike likely, and how far the trial is."""

    possible: Tensor  # [N, E, C], bool
    cell: Tensor  # [N, E], where the last action was taken
    time: Tensor  # [N, E], steps of the trial so far


class GridNaviBayesOptimal(Solver[Belief]):
    """Follows the best plan until only one cell is left that can be the goal, and then goes there."""

    plays = ("gridnavi/",)

    @dataclass(frozen=True, config=STRICT)
    class Config(Solver.Config):
        """The trial that is planned for."""

        episodes: PositiveInt = 4
        """Rounds of a trial, each of which is one episode of every learner."""
        horizon: PositiveInt = 15
        """Steps of an episode."""

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: "gym.spaces.Discrete[Any]",
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, rng, config)
        self.size = side(observation_space, action_space)
        self.best = best_plan(self.size, self.config.horizon, self.config.episodes)
        grid = Grid(self.size)
        plan = np.array(self.best.actions)
        tables = {"plan": plan, "moves": grid.moves, "way": grid.way, "prior": grid.bit > 0}
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table).to(rng.device), persistent=False)
        self.plan: Tensor
        self.moves: Tensor
        self.way: Tensor
        self.prior: Tensor

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """As many rounds as are planned for, and the same number of episodes in each."""
        super().check_rounds(rounds)
        if len(rounds) != self.config.episodes:
            raise ConfigError(
                f"number of rounds is {len(rounds)}; allowed: {self.config.episodes}, as the agent's episodes"
            )

    def begin(self, tasks: int, episodes: int) -> Belief:
        """Every goal is possible."""
        zero = torch.zeros(tasks, episodes, dtype=torch.int64, device=self.plan.device)
        return Belief(self.prior.expand(tasks, episodes, -1), zero, zero)

    def act(self, belief: Belief, step: Step, explore: bool) -> tuple[Act, Belief]:
        """By the plan or, where one goal is left, by a shortest way; nothing is explored but by the plan."""
        possible = self.posterior(belief, step)
        x, y = step.obs.round().long().unbind(-1)
        cell = x * self.size + y
        planned = self.plan[belief.time.clamp(max=len(self.plan) - 1)]
        known, goal = possible.sum(-1) == 1, possible.byte().argmax(-1)
        action = torch.where(known, self.way[cell, goal], planned)
        return self.answer(action), Belief(possible, cell, belief.time + 1)

    def posterior(self, belief: Belief, step: Step) -> Tensor:
        """The cell that the last action led to is the goal, or it is not, [N, E, C].

        It follows from where the action was taken: of an episode's last step the cell itself is not seen.
        """
        reached = self.moves[belief.cell, step.action]
        here = torch.nn.functional.one_hot(reached, self.size**2).bool()
        paid = (step.reward > 0)[..., None]
        possible = torch.where(paid, here, belief.possible & ~here)
        return torch.where((belief.time > 0)[..., None], possible, belief.possible)


def side(observation_space: gym.spaces.Box, action_space: "gym.spaces.Discrete[Any]") -> int:
    """Cells along a side of the grid of which observations are the cells (x, y)."""
    low, high = observation_space.low.ravel(), observation_space.high.ravel()
    sizes = [n for n in range(3, 8) if (*low, *high) == (0, 0, n - 1, n - 1)]
    if not sizes or action_space.n != len(MOVES):
        raise ConfigError(
            f"the spaces are {observation_space} and {action_space}; allowed: the cells (x, y) of a grid of "
            "3 to 7 cells a side, numbered from 0, and Discrete(5)"
        )
    return sizes[0]
