"""A family that tells its tasks: what an oracle plays, and what adaptation is held against."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import ConfigError, Family, Outcome, Published, Tasks


class Told:
    """Another family, whose observations end with the task's numbers, each [-1, 1] over its trained range.

    All else is that family's, but for published results, whose agents were told nothing. It does not pass
    `check_family`: that promises that tasks are hidden.
    """

    published: tuple[Published, ...] = ()

    def __init__(self, family: Family) -> None:
        if len(family.observation_space.shape) != 1:
            raise ConfigError(
                f"tell_task is true; allowed for {family.name}, whose observations are no vectors: false"
            )
        self.family = family
        self.summary = f"{family.summary}; observations tell the task"
        ends = np.array([(p.train_low, p.train_high) for p in family.task_space])
        reach = (ends[:, 1] - ends[:, 0]) / 2
        scale = np.stack([ends.mean(1), np.where(reach > 0, reach, 1.0)])
        self._middle, self._reach = torch.as_tensor(scale, device=family.device).to(torch.get_default_dtype())
        space, limit = family.observation_space, np.full(len(ends), np.inf, np.float32)
        low, high = np.append(space.low, -limit), np.append(space.high, limit)
        self.observation_space = gym.spaces.Box(low, high, dtype=np.float32)

    def __getattr__(self, name: str) -> Any:
        if name == "family":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.family, name)

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """The family's, [N, E, O + P]."""
        self._tell(tasks)
        return self._told(self.family.reset(tasks, episodes, rng))

    def restart(self, ended: Tensor, tasks: Tasks, rng: Generator) -> Tensor:
        """The family's, [N, E, O + P]."""
        self._tell(tasks)
        restart: Any = self.family.restart  # type: ignore[attr-defined]
        return self._told(restart(ended, tasks, rng))

    def step(self, action: Tensor) -> Outcome:
        """The family's."""
        outcome = self.family.step(action)
        return outcome._replace(obs=self._told(outcome.obs))

    def _tell(self, tasks: Tasks) -> None:
        self._task = ((tasks.params - self._middle) / self._reach).unsqueeze(1)  # [N, 1, P]

    def _told(self, obs: Tensor) -> Tensor:
        return torch.cat([obs, self._task.expand(-1, obs.shape[1], -1)], -1)
