"""What off-policy agents share: replay of what each task has shown, and soft actor-critic on it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as Several
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn

from metarl import (
    SAC_METRICS,
    STRICT,
    Act,
    Adam,
    ConfigError,
    Experience,
    Replay,
    Rollout,
    Sac,
    SacConfig,
    Squashed,
    Transitions,
    Trial,
    packed_width,
    require_target,
    shared_gradients,
    steps_of,
)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class OffPolicyConfig(SacConfig):
    """Settings that off-policy agents share."""

    gradient_steps: PositiveInt = 2000
    """Gradient steps after each meta-batch of trials."""
    update_tasks: PositiveInt = 16
    """Tasks in a gradient step."""
    batch_size: PositiveInt = 256
    """Transitions of each of them."""
    learning_starts: NonNegativeInt = 0
    """Environment steps that are played before anything is learned."""
    replay_tasks: PositiveInt = 200
    """Tasks that are remembered: all of a fixed pool, or the latest of a continuous distribution."""
    replay_capacity: PositiveInt = 20_000
    """Steps that are remembered of each; on a GPU their place is taken from the start."""
    learn_from_target: bool = False
    """Learn from the reward that the family shows to training alone, as a dense one of a sparse family."""


class Draw(NamedTuple):
    """All that chance decides of a gradient step, M tasks first; a subclass's has more."""

    steps: Transitions  # [M, B, ...]
    noise: Tensor  # [M, B, A], of the actions that are tried, as the next
    next_noise: Tensor  # [M, B, A]


class OffPolicy(nn.Module, ABC):
    """Collects trials into replay, then takes gradient steps on it; what networks read, a subclass says."""

    config: OffPolicyConfig
    adam: Adam

    def __init__(
        self, observation_space: gym.spaces.Box, action_space: Any, rng: Generator, config: OffPolicyConfig
    ) -> None:
        super().__init__()
        self.rng = rng
        if not isinstance(action_space, gym.spaces.Box) or not action_space.is_bounded():
            raise ConfigError(f"action_space is {action_space}; allowed off policy: a Box with bounds")
        self.observed, self.acted = int(observation_space.shape[0]), int(action_space.shape[0])
        bounds = [torch.as_tensor(x, device=rng.device) for x in (action_space.low, action_space.high)]
        low, high = (x.to(torch.get_default_dtype()) for x in bounds)
        self.register_buffer("middle", (high + low) / 2, persistent=False)
        self.register_buffer("reach", (high - low) / 2, persistent=False)
        self.middle: Tensor
        self.reach: Tensor
        self.replay = self.make_replay(config.replay_tasks, config.replay_capacity)
        whole = torch.zeros((), dtype=torch.int64, device=rng.device)
        self.register_buffer("played", whole)  # environment steps
        self.register_buffer("updates", whole.clone())  # gradient steps
        self.played: Tensor
        self.updates: Tensor

    def make_replay(self, tasks: int, capacity: int) -> Replay:
        """A replay of packed transitions."""
        return Replay(tasks, capacity, packed_width(self.observed, self.acted), self.rng.device)

    def make_learner(self, inputs: int) -> None:
        """Soft actor-critic that reads so many features, and one Adam for all that is learned."""
        self.sac = Sac(inputs, self.acted, self.config, self.rng)
        self.adam = Adam([p for p in self.parameters() if p.requires_grad], math.inf, eps=1e-8)

    # --- the agent's side of a trial

    def check_rounds(self, rounds: Several[int]) -> None:
        """Any will do."""

    def check_pool(self, tasks: int) -> None:
        """Raise ConfigError where replay has no room for a fixed pool of so many training tasks."""
        self.replay.check_pool(tasks)

    def acting(self, policy: Squashed, explore: bool) -> Act:
        """An action, in the environment's units, and its log-density there; no critic's value."""
        mean = policy.mean
        action, log_prob = policy.draw(self.normal(*mean.shape) if explore else torch.zeros_like(mean))
        action = self.middle + self.reach * action
        return Act(action, log_prob - self.reach.log().sum(), torch.zeros_like(log_prob))

    # --- learning across tasks

    @torch.no_grad()
    def meta_update(self, trial: Trial) -> dict[str, float]:
        """Remember what was played, then take `gradient_steps` on replay, once enough was played."""
        if self.config.learn_from_target:
            require_target(torch.stack([r.target.abs().sum() for r in trial.rounds]))
        self.store(trial)
        self.played += sum(r.valid.sum() for r in trial.rounds)
        found = self.learn() if self.played.item() >= self.config.learning_starts else {}
        return {"gradient_steps": float(self.updates.item()), **found}

    def store(self, trial: Trial) -> Tensor:
        """All rounds into replay; the tasks' slots, [N]."""
        slots = self.replay.slots_of(trial.tasks)
        for rollout in trial.rounds:
            remember(self.replay, slots, rollout)
        return slots

    def learn(self) -> dict[str, float]:
        """Gradient steps, each on a few tasks' transitions; the host waits for the device only at the end."""
        c, said = self.config, list[Tensor]()
        filled, parts = self.replay.filled, torch.arange(c.update_tasks, device=self.rng.device)
        for _ in range(c.gradient_steps):
            slots = filled[self.integers(len(filled), c.update_tasks)]
            share = partial(self.loss, self.draw(slots))
            gradients, losses = shared_gradients(share, self.adam.parameters_, parts)
            self.adam.step(gradients, c.learning_rate)
            self.sac.follow()
            said.append(losses)
        self.updates += c.gradient_steps
        means = torch.stack(said).mean(0).tolist()
        temperature = self.sac.log_temperature.exp().item()
        return {**dict(zip(self.said, means, strict=True)), "temperature": temperature}

    @property
    def said(self) -> tuple[str, ...]:
        """The names of what `loss` reports."""
        return SAC_METRICS

    @abstractmethod
    def draw(self, slots: Tensor) -> Any:
        """What a gradient step on these slots [M] is taken on: a tuple of tensors, M first in each."""

    @abstractmethod
    def loss(self, draw: Any, part: Tensor) -> tuple[Tensor, Tensor]:
        """What some of the M tasks add to the loss of all, and to what is said."""

    # --- chance

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform from 0, ..., high - 1."""
        return torch.randint(high, shape, generator=self.rng, device=self.rng.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        return torch.empty(shape, device=self.rng.device).normal_(generator=self.rng)

    def transitions(self, slots: Tensor) -> Draw:
        """A batch of transitions of each slot [M], and the noise for actions there."""
        return self.with_noise(self.replay.draw(slots, self.config.batch_size, self.rng))

    def with_noise(self, rows: Tensor) -> Draw:
        """The steps in rows [M, n, F] of replay, and the noise for actions there."""
        noise = (self.normal(*rows.shape[:2], self.acted) for _ in range(2))
        return Draw(Transitions.unpack(rows, self.observed, self.acted), *noise)

    # --- what is learned from

    def unit_action(self, action: Tensor) -> Tensor:
        """Actions as the networks have them, in [-1, 1]."""
        return (action - self.middle) / self.reach

    def experience(self, draw: Draw, x: Tensor, next_x: Tensor) -> Experience:
        """Steps with what is read before and after each."""
        steps, reward = draw.steps, self.rewarded(draw.steps)
        weight = torch.full_like(reward, 1 / (self.config.update_tasks * self.config.batch_size))
        action, noise = self.unit_action(steps.action), (draw.noise, draw.next_noise)
        return Experience(x, action, reward, next_x, steps.terminated, weight, *noise)

    def rewarded(self, steps: Transitions) -> Tensor:
        """The rewards that are learned from."""
        return steps.target if self.config.learn_from_target else steps.reward


def remember(replay: Replay, slots: Tensor, *rounds: Rollout, whole: bool = False) -> None:
    """Rounds, one after the other, into the tasks' slots; `whole` with the steps that were not played."""
    steps = Transitions.of(steps_of(rounds), len(slots))
    replay.add(slots, steps.pack(), torch.ones_like(steps.valid, dtype=torch.bool) if whole else steps.valid)


def columns(draw: Any, part: Tensor) -> Any:
    """The part of a draw that belongs to some of its tasks."""
    return every(draw, lambda x: x[part])


def every(draw: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A draw with a function applied to all tensors in its nested tuples."""
    if isinstance(draw, Tensor):
        return function(draw)
    return type(draw)(*(every(x, function) for x in draw))
