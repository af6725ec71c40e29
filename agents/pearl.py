"""PEARL: Rakelly et al. 2019, "Efficient Off-Policy Meta-RL via Probabilistic Context Variables".

An encoder infers a posterior over an embedding z of the task from the transitions seen so far. A policy
given z acts for a whole episode on one sample, so that it explores as posterior sampling does. Soft
actor-critic trains all of it from replay, the encoder by the critics' loss and the information bottleneck.
"""

from collections.abc import Sequence as Several
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from metarl import (
    SAC_METRICS,
    STRICT,
    Act,
    ConfigError,
    Gaussian,
    Rollout,
    Step,
    Transitions,
    Trial,
    steps_of,
    unroll,
)

from .off_policy import Draw, OffPolicy, OffPolicyConfig, columns, remember
from .task_encoder import Evidence, TaskEncoder, TaskEncoderConfig


class Belief(NamedTuple):
    """What the context says of each task, and the embeddings that the present episodes act on."""

    evidence: Evidence  # [N, Z] each
    z: Tensor | None  # [N, E, Z], held until the round is over; none before its first step


class PearlDraw(NamedTuple):
    """A gradient step's transitions, and the context and the noise of the posterior's sample."""

    batch: Draw
    context: Tensor  # [M, C, I]
    noise: Tensor  # [M, Z]


class Pearl(OffPolicy):
    """Soft actor-critic on the state and a sample of the posterior over tasks."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(TaskEncoderConfig, OffPolicyConfig):
        """Settings; those of the update are soft actor-critic's."""

        context_size: PositiveInt = 100
        """Steps from which each task's posterior is inferred in a gradient step."""
        context_capacity: PositiveInt = 1000
        """Steps of a task's latest trial, but for its last round, from which they are drawn."""

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        self.config: Pearl.Config = config or self.Config()
        c = self.config
        super().__init__(observation_space, action_space, rng, c)
        self.context = self.make_replay(c.replay_tasks, c.context_capacity)
        inputs = self.observed * (1 + c.next_obs_in_context) + self.acted + 1
        self.encoder = TaskEncoder(inputs, c, rng)
        self.make_learner(self.observed + c.latent_dim)

    # --- the agent's side of a trial

    def check_rounds(self, rounds: Several[int]) -> None:
        """There has to be a context, and something that is played with it."""
        if len(rounds) < 2:
            raise ConfigError(
                f"rounds is {[*rounds]}; allowed: 2 or more, the last of which acts on what the others showed"
            )

    def begin(self, tasks: int, episodes: int) -> Belief:
        """The prior."""
        zero = self.middle.new_zeros(tasks, self.config.latent_dim)
        return Belief(Evidence(zero, zero), None)

    def act(self, belief: Belief, step: Step, explore: bool = True) -> tuple[Act, Belief]:
        """Sample z for each episode as it begins, or take the posterior's mean; then act on it."""
        z = belief.z
        if z is None:
            q, episodes = self.encoder.posterior(belief.evidence), step.reward.shape[1]
            z = q.mean.unsqueeze(1).expand(-1, episodes, -1)
            if explore:
                z = z + q.log_std.exp().unsqueeze(1) * self.normal(*z.shape)
        policy = self.sac.policy(torch.cat([step.obs, z], -1))
        return self.acting(policy, explore), belief._replace(z=z)

    @torch.no_grad()
    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """q(z | c) with all of the round's transitions joining the context."""
        steps = Transitions.of(steps_of([rollout]), rollout.reward.shape[1])
        said = self.encoder(self.seen(steps))
        valid = steps.valid.unsqueeze(-1)
        return Belief(belief.evidence.plus(Evidence(*(x * valid for x in said)).sum(1)), None)

    @torch.no_grad()
    def posterior(self, trial: Trial) -> tuple[Tensor, Tensor]:
        """Means and standard deviations of each learner's posterior at every step, [L, N E, Z] each.

        From the transitions that it has seen itself before the step, the steps of all rounds one after the
        other.
        """
        steps = unroll(trial)
        n = steps.reward.shape[1]
        rows = Transitions.of(steps, n)  # [N E, L, ...]
        said = self.encoder(self.seen(rows))
        sums = [(x * rows.valid.unsqueeze(-1)).cumsum(1) for x in said]
        before = Evidence(*(torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1) for x in sums))
        q = self.encoder.posterior(before)
        return q.mean.transpose(0, 1), q.log_std.exp().transpose(0, 1)

    # --- learning across tasks

    def store(self, trial: Trial) -> Tensor:
        """All rounds into replay; those before the last are the tasks' new context."""
        slots = super().store(trial)
        self.context.clear(slots)
        for rollout in trial.rounds[:-1]:
            remember(self.context, slots, rollout)
        return slots

    def seen(self, steps: Transitions) -> Tensor:
        """(s, a, r) or (s, a, r, s') of a context's steps, [..., I]."""
        parts = [steps.obs, self.unit_action(steps.action), steps.reward.unsqueeze(-1)]
        return torch.cat(parts + [steps.next_obs] * self.config.next_obs_in_context, -1)

    def draw(self, slots: Tensor) -> PearlDraw:
        """Transitions of each task from replay, and a context from its latest trial."""
        rows = self.context.draw(slots, self.config.context_size, self.rng)
        context = self.seen(Transitions.unpack(rows, self.observed, self.acted))
        return PearlDraw(self.transitions(slots), context, self.normal(len(slots), self.config.latent_dim))

    @property
    def said(self) -> tuple[str, ...]:
        """The learner's, and the divergence from the prior in nats."""
        return *SAC_METRICS, "posterior_kl"

    def loss(self, draw: PearlDraw, part: Tensor) -> tuple[Tensor, Tensor]:
        """J_Q + J_π + J_α + β Σ_tasks KL(q(z | c) ‖ p(z)): one posterior and one z for all of it.

        The policy reads z as a constant; encoder and critics share one backward pass.
        """
        draw = columns(draw, part)
        q = self.inferred(draw.context)
        z = q.mean + q.log_std.exp() * draw.noise
        steps = draw.batch.steps
        x, next_x = (with_z(obs, z) for obs in (steps.obs, steps.next_obs))
        total, said = self.sac.loss(self.experience(draw.batch, x, next_x))
        kl = self.encoder.divergence(q).sum()
        return total + self.config.kl_weight * kl, torch.cat([said, (kl / self.config.update_tasks)[None]])

    def inferred(self, context: Tensor) -> Gaussian:
        """q(z | c) from contexts [M, C, I]."""
        return self.encoder.posterior(self.encoder(context).sum(1))


def with_z(obs: Tensor, z: Tensor) -> Tensor:
    """(s, z) of every step, from [M, B, O] and [M, Z]."""
    return torch.cat([obs, z.unsqueeze(1).expand(-1, obs.shape[1], -1)], -1)
