"""Recurrent soft actor-critic, after Ni et al. 2022, "Recurrent Model-Free RL Can Be a Strong Baseline".

RL²'s problem learned off policy: a memory lives through all episodes of a trial, and whole trials are
replayed. One memory serves policy and critics; the critics' loss trains it.
"""

from typing import Any, NamedTuple

import gymnasium as gym
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from metarl import (
    STRICT,
    Act,
    ConfigError,
    Experience,
    MemoryKind,
    Step,
    Transitions,
    Trial,
    below,
    make_memory,
)

from .off_policy import Draw, OffPolicy, OffPolicyConfig, columns, every, remember
from .recurrent import Belief, Remembering


class TrialDraw(NamedTuple):
    """A gradient step's trials, and what each of their steps weighs in the losses."""

    batch: Draw  # [M, K L, ...] each
    weight: Tensor  # [M, K L]


class RecurrentSac(Remembering, OffPolicy):
    """Soft actor-critic on the present input and a memory's features."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(OffPolicyConfig):
        """Settings; those of the update are soft actor-critic's."""

        batch_size: PositiveInt = 2
        """Whole trials of each task in a gradient step."""
        gradient_steps: PositiveInt = 200
        """Gradient steps after each meta-batch of trials."""
        hidden: tuple[PositiveInt, ...] = (128, 128)
        """Widths of the layers of policy and critics."""
        memory: MemoryKind = "gru"
        """What remembers: gru, lstm or transformer."""
        memory_width: PositiveInt = 128
        """Width of the memory."""

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        self.config: RecurrentSac.Config = config or self.Config()
        c = self.config
        super().__init__(observation_space, action_space, rng, c)
        self.width = self.observed + self.acted + 2  # of the inputs
        self.memory = make_memory(c.memory, self.width, c.memory_width, rng)
        # the networks also see the present input as it is: the memory need not carry it
        self.make_learner(c.memory_width + self.width)
        self.length = 0  # L, steps of the trials in replay

    # --- the agent's side of a trial

    def act(self, belief: Belief, step: Step, explore: bool = True) -> tuple[Act, Belief]:
        """Take the step in, then act."""
        x = self.inputs(*step)
        features, belief = self.take_in(belief, x, step.done)
        return self.acting(self.sac.policy(torch.cat([features, x], -1)), explore), belief

    def inputs(self, obs: Tensor, action: Tensor, reward: Tensor, done: Tensor) -> Tensor:
        """(s_t, a_{t-1}, r_{t-1}, d_{t-1}), [..., I]: all that is new at a step."""
        return torch.cat([obs, action, reward.unsqueeze(-1), done.unsqueeze(-1)], -1)

    # --- learning across tasks

    def store(self, trial: Trial) -> Tensor:
        """Whole trials into replay, learner by learner, with the steps that were not played."""
        length, capacity = sum(len(r.reward) for r in trial.rounds), self.config.replay_capacity
        if self.length not in (0, length):
            raise ConfigError(f"a trial has {length} steps; allowed: {self.length}, as those in replay")
        if capacity < length:
            raise ConfigError(
                f"agent.replay_capacity is {capacity}; allowed: {length} or more, a trial's steps"
            )
        self.length = length
        self.replay.capacity = capacity - capacity % length  # trials are never cut
        slots = self.replay.slots_of(trial.tasks)
        remember(self.replay, slots, *trial.rounds, whole=True)
        return slots

    def draw(self, slots: Tensor) -> TrialDraw:
        """Whole trials of each task, [M, K L, ...], and the noise for actions there."""
        length, n = self.length, self.config.batch_size
        first = below(self.replay.size[slots] // length, n, self.rng) * length
        index = first.unsqueeze(-1) + torch.arange(length, device=slots.device)
        batch = self.with_noise(self.replay.rows(slots, index.flatten(1)))
        return TrialDraw(batch, batch.steps.valid / batch.steps.valid.sum())

    def loss(self, draw: TrialDraw, part: Tensor) -> tuple[Tensor, Tensor]:
        """J_Q + J_π + J_α over the steps of whole trials, as one episode each."""
        # [m, K L, ...] to [L, m K, ...]
        (steps, *noise), weight = every(
            columns(draw, part), lambda x: x.unflatten(1, (-1, self.length)).flatten(0, 1).transpose(0, 1)
        )
        x = self.read(steps)
        action, reward = self.unit_action(steps.action), self.rewarded(steps)
        return self.sac.loss(
            Experience(x[:-1], action, reward, x[1:].detach(), ending(steps), weight, *noise)
        )

    def read(self, steps: Transitions) -> Tensor:
        """What the networks read before each of L steps [L, B, ...] and after the last, [L + 1, B, X]."""
        # what follows a trial's last played step is not the next row's, which was not played
        after = torch.where(steps.valid[1:, :, None] > 0, steps.obs[1:], steps.next_obs[:-1])
        obs = torch.cat([steps.obs[:1], after, steps.next_obs[-1:]])
        action, reward = (torch.cat([torch.zeros_like(x[:1]), x]) for x in (steps.action, steps.reward))
        done = torch.cat([steps.done * steps.valid, torch.zeros_like(steps.done[:1])])
        x = self.inputs(obs, action, reward, done)
        return torch.cat([self.memory.sequence(x), x], -1)


def ending(steps: Transitions) -> Tensor:
    """1 at a trial's last played step where its episode ended by itself: else another episode follows."""
    after = torch.cat([steps.valid[1:], torch.zeros_like(steps.valid[:1])])
    return steps.terminated * steps.valid * (1 - after)
