"""What recurrent agents share: how they read a step, and a memory that lives through all of a trial."""

from abc import ABC, abstractmethod
from collections.abc import Sequence as Several
from typing import Annotated, Any, NamedTuple

import gymnasium as gym
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from metarl import (
    STRICT,
    Act,
    Categorical,
    ConfigError,
    Each,
    Head,
    Judgement,
    Memory,
    MemoryKind,
    MemoryState,
    Normaliser,
    Ppo,
    PpoConfig,
    Rollout,
    Sequence,
    Step,
    linear,
    make_memory,
    perceptron,
)

LIMIT = 10.0  # standard deviations beyond which an input tells no more


class Belief(NamedTuple):
    """What is known of each task: the memory, whether a new episode begins, and whether the trial does."""

    memory: MemoryState  # [N, E, ...] each
    fresh: bool
    first: bool = False


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RecurrentConfig(PpoConfig):
    """Settings that recurrent agents share."""

    memory: MemoryKind = "gru"
    """What remembers: gru, lstm (in small minibatches on a CPU several times as fast) or transformer."""
    hidden: PositiveInt = 128
    """Width of the memory."""
    memory_span: Annotated[int, Field(ge=3)] | None = None
    """Steps that a gru or an lstm remembers at first, at most, as the length of a trial; none: about one."""
    transformer_blocks: PositiveInt = 2
    """Blocks of the transformer, where that is the memory."""
    previous_observation: bool = False
    """Show it the observation before, too, and so whole transitions, as one that attends wants them."""
    initial_std: PositiveFloat = 1.0
    """Standard deviation of the untrained policy, where actions are continuous."""
    action_by_reward: bool = False
    """Show it the previous action times its reward, too: what paid is then linear in the input."""
    learn_from_target: bool = False
    """Learn from the reward that the family shows to training alone, as one without a bandit's noise."""
    normalise: bool = True
    """Standardise observations, rewards and, where an agent has them, beliefs by running statistics."""


class Remembering:
    """An agent's side of a trial where a memory is all that adapts."""

    unit = "episodes"  # what its reports count: there is nothing else between two rounds
    memory: Memory

    def check_rounds(self, rounds: Several[int]) -> None:
        """A memory is an episode's own: every round needs as many."""
        if len({*rounds}) > 1:
            raise ConfigError(f"rounds is {[*rounds]}; allowed: the same number in each, as memories live on")

    def begin(self, tasks: int, episodes: int) -> Belief:
        """An empty memory for each of N E learners."""
        state = self.memory.begin(tasks * episodes)
        return Belief(tuple(x.unflatten(0, (tasks, episodes)) for x in state), fresh=True, first=True)

    def take_in(self, belief: Belief, x: Tensor, done: Tensor) -> tuple[Tensor, Belief]:
        """The memory's features [N, E, H] after inputs [N, E, I]; an episode that is over moves no memory."""
        batch = done.shape
        state = tuple(s.flatten(0, 1) for s in belief.memory)
        moves = torch.ones_like(done, dtype=torch.bool) if belief.fresh else done == 0
        features, state = self.memory.step(x.flatten(0, 1), state, moves.flatten())
        return features.unflatten(0, batch), Belief(tuple(s.unflatten(0, batch) for s in state), False)

    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """Nothing is learned between episodes but that another one begins."""
        return belief._replace(fresh=True)


class Recurrent(Remembering, nn.Module, ABC):
    """An actor-critic with a memory; what of it the policy reads, `judgement` of a subclass says."""

    learner: Ppo

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: RecurrentConfig,
        per_action: bool = False,
    ) -> None:
        super().__init__()
        self.rng, self.learn_from_target, self.per_action = rng, config.learn_from_target, per_action
        self.actions = int(action_space.n) if isinstance(action_space, gym.spaces.Discrete) else 0
        self.observed = int(observation_space.shape[0])
        self.acted = self.actions or int(action_space.shape[0])  # features of an action
        if per_action and not self.actions:
            raise ConfigError("agent.per_action is True; allowed where actions are continuous: false")
        self.action_by_reward = config.action_by_reward
        shown = 1 if per_action else self.acted  # of the action, to a memory
        self.width = self.observed + (1 + self.action_by_reward) * shown + 2  # of the inputs
        self.normaliser = Normaliser(self.observed + 1, rng.device)  # and the reward
        again = self.observed if config.previous_observation else 0
        memory = make_memory(
            config.memory,
            self.width,
            config.hidden,
            rng,
            again,
            config.transformer_blocks,
            config.memory_span,
        )
        self.memory = Each(memory, self.actions) if per_action else memory

    def make_actor_critic(
        self, features: int, layers: tuple[int, ...], action_space: Any, initial_std: float
    ) -> None:
        """Policy and critic, apart from each other, that both read so many features.

        Where those are an action's own, the critic also reads their mean over all actions.
        """
        judged = features * (1 + self.per_action)
        self.actor = perceptron(features, layers, self.rng)
        self.critic = perceptron(judged, layers, self.rng)
        self.head = Head([features, *layers][-1], action_space, self.rng, initial_std, each=self.per_action)
        self.value = linear([judged, *layers][-1], 1, self.rng, gain=1.0)

    def actor_critic(self, features: Tensor) -> Judgement:
        """Policy and value from what they read, [..., F].

        From what they read of each action, [..., A, F]: V = Σ_a π(a) Q(a), of which the critic says the Q's.
        """
        policy = self.head(self.actor(features))
        if not self.per_action:
            return Judgement(policy, self.value(self.critic(features)).squeeze(-1))
        assert isinstance(policy, Categorical)
        whole = features.mean(-2, keepdim=True).expand_as(features)
        q = self.value(self.critic(torch.cat([features, whole], -1))).squeeze(-1)
        return Judgement(policy, (policy.log_probs.detach().exp() * q).sum(-1))

    @abstractmethod
    def judgement(self, features: Tensor, x: Tensor) -> Judgement:
        """Policy and value from the memory's features [..., H] and the present input [..., I]."""

    def act(self, belief: Belief, step: Step, explore: bool = True) -> tuple[Act, Belief]:
        """Take the step in, then act."""
        x = self.inputs(*step)
        if belief.first:
            self.blank_action(x)
        features, belief = self.take_in(belief, x, step.done)
        policy, value = self.judgement(features, x)
        action = policy.sample(self.rng) if explore else policy.mode
        return Act(action, policy.log_prob(action), self.learner.scale.inverse(value)), belief

    # --- what is read of a step

    def inputs(self, obs: Tensor, action: Tensor, reward: Tensor, done: Tensor) -> Tensor:
        """(s_t, r_{t-1}, a_{t-1}, d_{t-1}), [..., I], perhaps with r_{t-1} a_{t-1}: what is new at a step.

        For a memory of each action, [..., A, I]: of a_{t-1}, and that product, each is shown its own alone.
        """
        standard, action, done = self.standard(obs, reward), self.encoded(action), done.unsqueeze(-1)
        product = [standard[..., -1:] * action] if self.action_by_reward else []
        if not self.per_action:
            return torch.cat([standard, action, done, *product], -1)
        own = torch.stack([action, *product], -1)
        shared = torch.cat([standard, done], -1).unsqueeze(-2)
        return torch.cat([shared.expand(*own.shape[:-1], -1), own], -1)

    def sequence_inputs(self, steps: Sequence) -> Tensor:
        """The inputs of whole trials, [L, B, I]."""
        x = self.inputs(steps.obs, steps.last_action, steps.last_reward, steps.done)
        self.blank_action(x[0])
        return x

    def blank_action(self, x: Tensor) -> None:
        """Blank the action before in a trial's first inputs, in place, where each action has a memory.

        There is none, but a Step's zeros look like action 0's; one memory for all learns around that.
        """
        if self.per_action:
            x[..., -1 - self.action_by_reward :] = 0.0

    def standard(self, obs: Tensor, reward: Tensor) -> Tensor:
        """Observation and reward by their running mean and standard deviation, [..., O + 1]."""
        standard: Tensor = self.normaliser(torch.cat([obs, reward.unsqueeze(-1)], -1))
        return standard.clamp(-LIMIT, LIMIT)

    def encoded(self, action: Tensor) -> Tensor:
        """Actions as features, [..., A]: those of a Discrete space one-hot."""
        return F.one_hot(action, self.actions).to(torch.get_default_dtype()) if self.actions else action

    def rewarded(self, steps: Sequence) -> Sequence:
        """The steps with the rewards that are learned from; what the memory reads stays what was paid."""
        return steps.rewarded_by_target() if self.learn_from_target else steps

    def count(self, steps: Sequence) -> None:
        """Bring the running statistics up to date with what was played."""
        seen = torch.cat([steps.obs, steps.reward.unsqueeze(-1)], -1)
        self.normaliser.update(seen[steps.valid])
