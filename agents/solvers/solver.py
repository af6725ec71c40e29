"""What all reference solvers share, and the one that learns nothing.

A solver is an agent that needs no training: its belief is what was counted in each episode's own task so far,
every tensor of it [N, E, ...], moved in `act` by the step that came before.
"""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import gymnasium as gym
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn

from metarl import STRICT, Act, ConfigError, Rollout, Step, Trial

B = TypeVar("B")


class Solver(nn.Module, Generic[B]):
    """The agent's side of a trial that is the same for all; a solver adds `begin` and `act`."""

    plays: tuple[str, ...] = ()  # how the names of the families begin that it is for

    @dataclass(frozen=True, config=STRICT)
    class Config:
        """What a solver knows of the trial; whoever builds it fills this in."""

        episodes: PositiveInt = 100
        """Rounds of a trial, each of which is one episode of every learner."""
        horizon: PositiveInt = 1
        """Steps of an episode."""

    config: Config

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: "gym.spaces.Discrete[Any]",
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.rng = rng
        self.actions = int(action_space.n)

    @classmethod
    def settings_for(cls, family: str) -> dict[str, Any]:
        """The settings that follow from a family's name."""
        return {}

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """The belief has an axis of episodes, so their number has to stay the same."""
        if len({*rounds}) > 1:
            raise ConfigError(f"rounds is {[*rounds]}; allowed: the same number of episodes in every round")

    def adapt(self, belief: B, rollout: Rollout) -> B:
        """All was learned in `act`, but for the last step, which the next round's first one carries."""
        return belief

    def meta_update(self, trial: Trial) -> dict[str, float]:
        """There is nothing to learn across tasks: the prior is given."""
        return {}

    def answer(self, action: Tensor) -> Act:
        """Actions [N, E] without a density or a critic."""
        zero = torch.zeros(action.shape, device=action.device)
        return Act(action, zero, zero)

    def any_best(self, score: Tensor) -> Tensor:
        """The place of the largest score, ties broken at random; [N, E, A] -> [N, E]."""
        chance = torch.rand(score.shape, generator=self.rng, device=score.device)
        return chance.masked_fill(score < score.amax(-1, keepdim=True), -1).argmax(-1)


class Random(Solver[Tensor]):
    """Every action is equally likely at every step; the floor of each family."""

    plays = ("bandit/", "tabular-mdp/", "gridnavi/")

    def begin(self, tasks: int, episodes: int) -> Tensor:
        """Nothing is known, [N, 0]."""
        return torch.zeros(tasks, 0, device=self.rng.device)

    def act(self, belief: Tensor, step: Step, explore: bool) -> tuple[Act, Tensor]:
        """Draw from all actions, with and without exploration: it is the policy."""
        size, device = step.reward.shape, step.reward.device
        return self.answer(torch.randint(self.actions, size, generator=self.rng, device=device)), belief
