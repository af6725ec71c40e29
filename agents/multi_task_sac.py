"""Multi-task soft actor-critic: one policy for all tasks, that is told nothing of them.

What adaptation has to beat. Where the experiment tells the task (`tell_task: true`) it is the oracle, which
adaptation cannot beat.
"""

from typing import Any

import gymnasium as gym
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from metarl import STRICT, Act, Rollout, Step

from .off_policy import Draw, OffPolicy, OffPolicyConfig, columns

Belief = tuple[()]


class MultiTaskSac(OffPolicy):
    """Soft actor-critic on the state alone."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(OffPolicyConfig):
        """Settings; those of the update are soft actor-critic's."""

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        self.config = config or self.Config()
        super().__init__(observation_space, action_space, rng, self.config)
        self.make_learner(self.observed)

    def begin(self, tasks: int, episodes: int) -> Belief:
        """Nothing is ever known."""
        return ()

    def act(self, belief: Belief, step: Step, explore: bool = True) -> tuple[Act, Belief]:
        """Sample from the policy, or take its mode."""
        return self.acting(self.sac.policy(step.obs), explore), belief

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing is learned from it."""
        return belief

    def draw(self, slots: Tensor) -> Draw:
        """Transitions of each task."""
        return self.transitions(slots)

    def loss(self, draw: Draw, part: Tensor) -> tuple[Tensor, Tensor]:
        """J_Q + J_π + J_α."""
        draw = columns(draw, part)
        return self.sac.loss(self.experience(draw, draw.steps.obs, draw.steps.next_obs))
