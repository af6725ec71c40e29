"""RL²: Duan et al. 2016, "Fast Reinforcement Learning via Slow Reinforcement Learning".

A policy with a memory that lives through all episodes of a trial: what it learns of a task is its hidden
state, and the outer reinforcement learner maximises the return of the whole trial. Trained by PPO, as is
common since, or by the original's TRPO.
"""

from collections.abc import Sequence as Several
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import torch
from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from metarl import (
    STRICT,
    Act,
    ConfigError,
    Distribution,
    Head,
    Judgement,
    MemoryKind,
    MemoryState,
    Normaliser,
    Ppo,
    Rollout,
    Sequence,
    Step,
    Trial,
    Trpo,
    TrpoConfig,
    linear,
    make_memory,
    perceptron,
    unroll,
)


class Belief(NamedTuple):
    """What RL² knows of each task: its memory, and whether a new episode begins."""

    memory: MemoryState  # [N, E, ...] each
    fresh: bool


class Rl2(nn.Module):
    """A recurrent actor-critic whose memory is carried across the episodes of a trial."""

    unit = "episodes"  # what its reports count: there is nothing else between two rounds

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(TrpoConfig):
        """Settings; those of the update are PPO's or TRPO's."""

        update: Literal["ppo", "trpo"] = "ppo"
        """What trains it: ppo, or the original's trpo."""
        memory: MemoryKind = "gru"
        """What remembers: gru, lstm or transformer."""
        hidden: PositiveInt = 128
        """Width of the memory."""
        layers: tuple[PositiveInt, ...] = ()
        """Widths of the layers between memory and policy, and as many for the critic."""
        initial_std: PositiveFloat = 1.0
        """Standard deviation of the untrained policy, where actions are continuous."""
        normalise: bool = True
        """Standardise observations and rewards by running statistics."""

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.rng = rng
        self.actions = int(action_space.n) if isinstance(action_space, gym.spaces.Discrete) else 0
        observed = observation_space.shape[0] + 1  # and the reward
        inputs = observed + (self.actions or action_space.shape[0]) + 1
        self.normaliser = Normaliser(observed, rng.device)
        self.memory = make_memory(c.memory, inputs, c.hidden, rng)
        # the policy also sees the present input as it is: the memory need not carry it
        features = c.hidden + inputs
        self.actor = perceptron(features, c.layers, rng)
        self.critic = perceptron(features, c.layers, rng)
        width = c.layers[-1] if c.layers else features
        self.head = Head(width, action_space, rng, c.initial_std)
        self.value = linear(width, 1, rng, gain=1.0)
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

    # --- the agent's side of a trial

    def check_rounds(self, rounds: Several[int]) -> None:
        """A memory is an episode's own: every round needs as many."""
        if len({*rounds}) > 1:
            raise ConfigError(f"rounds is {[*rounds]}; allowed: the same number in each, as memories live on")

    def begin(self, tasks: int, episodes: int) -> Belief:
        """An empty memory for each of N E learners."""
        state = self.memory.begin(tasks * episodes)
        return Belief(tuple(x.unflatten(0, (tasks, episodes)) for x in state), True)

    def act(self, belief: Belief, step: Step, explore: bool = True) -> tuple[Act, Belief]:
        """Take the step in, then act; an episode that is over moves no memory."""
        batch = step.reward.shape
        state = tuple(x.flatten(0, 1) for x in belief.memory)
        moves = torch.ones_like(step.done, dtype=torch.bool) if belief.fresh else step.done == 0
        x = self.inputs(*step).flatten(0, 1)
        features, state = self.memory.step(x, state, moves.flatten())
        policy, value = self.judgement(features.unflatten(0, batch), x.unflatten(0, batch))
        action = policy.sample(self.rng) if explore else policy.mode
        act = Act(action, policy.log_prob(action), self.learner.scale.inverse(value))
        return act, Belief(tuple(x.unflatten(0, batch) for x in state), False)

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing is learned between episodes but that another one begins."""
        return belief._replace(fresh=True)

    # --- learning across tasks

    @torch.no_grad()
    def meta_update(self, trial: Trial) -> dict[str, float]:
        """PPO over whole trials."""
        steps = unroll(trial)
        metrics = self.learner.update(steps, self.learner.targets(steps), self.judge, self.rng)
        if self.config.normalise:
            seen = torch.cat([steps.obs, steps.reward.unsqueeze(-1)], -1)
            self.normaliser.update(seen[steps.valid])
        return metrics

    def judge(self, steps: Sequence) -> Judgement:
        """Policy and value at every step of whole trials, the memory run through each at once."""
        x = self.inputs(steps.obs, steps.last_action, steps.last_reward, steps.done)
        return self.judgement(self.memory.sequence(x), x)

    def judgement(self, features: Tensor, x: Tensor) -> Judgement:
        """Policy and value from the memory's features [..., H] and the present input [..., I]."""
        both = torch.cat([features, x], -1)
        policy: Distribution = self.head(self.actor(both))
        return Judgement(policy, self.value(self.critic(both)).squeeze(-1))

    def inputs(self, obs: Tensor, action: Tensor, reward: Tensor, done: Tensor) -> Tensor:
        """(s_t, a_{t-1}, r_{t-1}, d_{t-1}), [..., I]: the paper's, standardised."""
        seen = self.normaliser(torch.cat([obs, reward.unsqueeze(-1)], -1))
        if self.actions:
            action = F.one_hot(action, self.actions).to(seen.dtype)
        return torch.cat([seen, action, done.unsqueeze(-1)], -1)
