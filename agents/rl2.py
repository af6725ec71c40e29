"""RL²: Duan et al. 2016, "Fast Reinforcement Learning via Slow Reinforcement Learning".

A policy with a memory that lives through all episodes of a trial: what it learns of a task is its hidden
state, and the outer reinforcement learner maximises the return of the whole trial. Trained by PPO, as is
common since, or by the original's TRPO.
"""

from typing import Any, Literal

import gymnasium as gym
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from metarl import STRICT, ConfigError, Judgement, Ppo, Sequence, Trial, Trpo, TrpoConfig, unroll

from .recurrent import Recurrent, RecurrentConfig


class Rl2(Recurrent):
    """A recurrent actor-critic whose memory is carried across the episodes of a trial."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(RecurrentConfig, TrpoConfig):
        """Settings; those of the update are PPO's or TRPO's."""

        update: Literal["ppo", "trpo"] = "ppo"
        """What trains it: ppo, or the original's trpo."""
        layers: tuple[PositiveInt, ...] = ()
        """Widths of the layers between memory and policy, and as many for the critic."""
        per_action: bool = False
        """Give each action a memory and a policy's preference of its own, by weights that all share: for
        actions that are alike until they are tried, as a bandit's arms."""

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        c = config or self.Config()
        super().__init__(observation_space, action_space, rng, c, c.per_action)
        self.config = c
        # the policy also sees the present input as it is: the memory need not carry it
        self.make_actor_critic(c.hidden + self.width, c.layers, action_space, c.initial_std)
        self.learner = self.make_learner()

    def make_learner(self) -> Ppo:
        """PPO trains all; TRPO steps on memory and policy, and fits the critic to its features."""
        if self.config.update == "ppo":
            return Ppo([*self.parameters()], self.config, self.rng)
        if self.rng.device.type == "cuda" and self.config.memory != "transformer":
            raise ConfigError(
                f"agent.update is 'trpo' with memory {self.config.memory!r} on cuda, where recurrent layers "
                "cannot be differentiated twice; allowed: the transformer, or cpu"
            )
        critic = [*self.critic.parameters(), *self.value.parameters()]
        policy = [p for module in (self.memory, self.actor, self.head) for p in module.parameters()]
        return Trpo(policy, critic, self.config, self.rng)

    # --- learning across tasks

    @torch.no_grad()
    def meta_update(self, trial: Trial) -> dict[str, float]:
        """PPO over whole trials."""
        steps = unroll(trial)
        metrics = self.learner.update(steps, self.learner.targets(self.rewarded(steps)), self.judge, self.rng)
        if self.config.normalise:
            self.count(steps)
        return metrics

    def judge(self, steps: Sequence) -> Judgement:
        """Policy and value at every step of whole trials, the memory run through each at once."""
        x = self.sequence_inputs(steps)
        return self.judgement(self.memory.sequence(x), x)

    def judgement(self, features: Tensor, x: Tensor) -> Judgement:
        """Policy and value from the memory's features [..., H] and the present input [..., I]."""
        return self.actor_critic(torch.cat([features, x], -1))
