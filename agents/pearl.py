"""PEARL: Rakelly et al. 2019, "Efficient Off-Policy Meta-RL via Probabilistic Context Variables".

An encoder infers a posterior over an embedding z of the task from the transitions seen so far. A policy
given z acts for a whole episode on one sample, so that it explores as posterior sampling does. Soft
actor-critic trains all of it from replay, the encoder by the critics' loss and the information bottleneck.

Ours are choices for rewards that have to be found: to explore from the embeddings of trained tasks, on a tour
from one to the next, and contexts that tell in training what only training may know.
"""

from collections.abc import Sequence as Several
from typing import Annotated, Any, Literal, NamedTuple

import gymnasium as gym
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
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
    require_target,
    steps_of,
    unroll,
)

from .off_policy import Draw, OffPolicy, OffPolicyConfig, columns, remember
from .task_encoder import Evidence, TaskEncoder, TaskEncoderConfig
from .tour import tour


class Belief(NamedTuple):
    """What the context says of each task, and the samples z = μ + σ ε that the present episodes act on."""

    evidence: Evidence  # [N, Z] each
    mean: Tensor  # μ of the posterior, [N, Z]
    std: Tensor  # σ, [N, Z]
    noise: Tensor | None  # ε, [N, E, Z]; none before the first step
    place: Tensor | None  # where in the tour of known tasks it is, [N, E]; none where it is not on one
    steps: int  # of the present episodes so far


class PearlDraw(NamedTuple):
    """A gradient step's transitions, and the context and the noise of the posterior's sample."""

    batch: Draw
    context: Tensor  # [M, C, I]
    informed: Tensor  # [M, 1], 1 where it tells a reward, or the target; 0: nothing can be known
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
        told_contexts: Annotated[float, Field(ge=0, le=1)] = 0.0
        """Share of contexts that tell the target as the reward; of the others, those without any reward then
        train the bottleneck alone."""
        explore_from: Literal["prior", "tasks"] = "prior"
        """Where exploring episodes' samples start: the prior's noise, or embeddings of training tasks."""
        sweep: NonNegativeFloat = 0.0
        """Tasks by which a step of exploration moves on, in a tour of their embeddings; 0: one is held."""
        sweep_after: NonNegativeInt = 0
        """Steps of each episode in which it is held, to go where it starts."""

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        self.config: Pearl.Config = config or self.Config()
        c = self.config
        if c.sweep and c.explore_from == "prior":
            raise ConfigError(f"agent.sweep is {c.sweep}; allowed without agent.explore_from tasks: 0")
        super().__init__(observation_space, action_space, rng, c)
        self.context = self.make_replay(c.replay_tasks, c.context_capacity)
        inputs = self.observed * (1 + c.next_obs_in_context) + self.acted + 1
        self.encoder = TaskEncoder(inputs, c, rng)
        self.make_learner(self.observed + c.latent_dim)
        if c.explore_from == "tasks":
            # in the order of a tour; 0: none yet
            self.register_buffer("known", self.middle.new_zeros(c.replay_tasks, c.latent_dim))
        self.known: Tensor

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
        return self.believed(Evidence(zero, zero))

    def believed(self, evidence: Evidence) -> Belief:
        """The posterior by this evidence, before an episode."""
        q = self.encoder.posterior(evidence)
        return Belief(evidence, q.mean, q.log_std.exp(), None, None, 0)

    def act(self, belief: Belief, step: Step, explore: bool = True) -> tuple[Act, Belief]:
        """Act on a sample z of the posterior, drawn for each episode as it begins, or on the mean."""
        z = belief.mean.unsqueeze(1).expand(*step.reward.shape, -1)
        if explore:
            noise, place = self.exploration(belief, z.shape)
            belief = belief._replace(noise=noise, place=place)
            z = z + belief.std.unsqueeze(1) * noise
        policy = self.sac.policy(torch.cat([step.obs, z], -1))
        return self.acting(policy, explore), belief._replace(steps=belief.steps + 1)

    def exploration(self, belief: Belief, shape: torch.Size) -> tuple[Tensor, Tensor | None]:
        """ε [N, E, Z] of the present step, and its place in the tour: drawn anew, kept, or further on."""
        c, noise, place, steps = self.config, belief.noise, belief.place, belief.steps
        if noise is None or noise.shape != shape:
            tasks = self.known_tasks()
            if not len(tasks):
                return self.normal(*shape), None
            place = self.integers(len(tasks), *shape[:-1]).to(tasks.dtype)
        elif place is None or not c.sweep or 0 < steps <= c.sweep_after:
            return noise, place
        else:  # the tour's ends may be far apart: it begins again with an episode, and only then
            tasks = self.known_tasks()
            further = place + c.sweep
            again = further // len(tasks) > place // len(tasks)
            place = torch.where(again == (steps == 0), further, place)
        return tasks[place.long() % len(tasks)], place

    def known_tasks(self) -> Tensor:
        """The embeddings of training tasks from which it explores, [K, Z], in the order of a tour."""
        if self.config.explore_from == "prior":
            return self.middle.new_empty(0, self.config.latent_dim)
        return self.known[self.known.any(-1)]

    @torch.no_grad()
    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """q(z | c) with all of the round's transitions joining the context; a tour goes on where it is."""
        steps = Transitions.of(steps_of([rollout]), rollout.reward.shape[1])
        said = self.encoder(self.seen(steps))
        valid = steps.valid.unsqueeze(-1)
        found = self.believed(belief.evidence.plus(Evidence(*(x * valid for x in said)).sum(1)))
        return found._replace(noise=belief.noise, place=belief.place) if self.config.sweep else found

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
        if share := self.config.told_contexts:
            shown = torch.stack([r.target.abs().sum() for r in trial.rounds])
            require_target(shown, f"told_contexts is {share}; allowed: 0")
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
        told = round(self.config.told_contexts * len(slots))
        steps = self.context_of(slots, told)
        informed = (steps.reward != 0).any(1, keepdim=True).to(steps.reward.dtype)
        batch = self.transitions(slots)
        noise = self.normal(len(slots), self.config.latent_dim)
        return PearlDraw(batch, self.seen(steps), informed, noise)

    def context_of(self, slots: Tensor, told: int) -> Transitions:
        """Steps of the latest trials of tasks, [M, C, ...]; those of the first `told` tell the target."""
        rows = self.context.draw(slots, self.config.context_size, self.rng)
        steps = Transitions.unpack(rows, self.observed, self.acted)
        if not told:
            return steps
        return steps._replace(reward=torch.cat([steps.target[:told], steps.reward[told:]]))

    def learn(self) -> dict[str, float]:
        """Gradient steps; and then, what the tasks of training are embedded as."""
        found = super().learn()
        if self.config.explore_from == "tasks":
            slots = self.context.filled
            steps = self.context_of(slots, len(slots) if self.config.told_contexts else 0)
            self.known.zero_()
            self.known[: len(slots)] = tour(self.inferred(self.seen(steps)).mean)
        return found

    @property
    def said(self) -> tuple[str, ...]:
        """The learner's, and the divergence from the prior in nats."""
        return *SAC_METRICS, "posterior_kl"

    def loss(self, draw: PearlDraw, part: Tensor) -> tuple[Tensor, Tensor]:
        """J_Q + J_π + J_α + β Σ_tasks KL(q(z | c) ‖ p(z)): one posterior and one z for all of it.

        The policy reads z as a constant; encoder and critics share one backward pass. Where some contexts are
        told, others without reward are in the last term alone: acting on them would be to average over tasks.
        """
        draw = columns(draw, part)
        q = self.inferred(draw.context)
        z = q.mean + q.log_std.exp() * draw.noise
        steps = draw.batch.steps
        x, next_x = (with_z(obs, z) for obs in (steps.obs, steps.next_obs))
        experience = self.experience(draw.batch, x, next_x)
        if self.config.told_contexts:
            experience = experience._replace(weight=experience.weight * draw.informed)
        total, said = self.sac.loss(experience)
        kl = self.encoder.divergence(q).sum()
        return total + self.config.kl_weight * kl, torch.cat([said, (kl / self.config.update_tasks)[None]])

    def inferred(self, context: Tensor) -> Gaussian:
        """q(z | c) from contexts [M, C, I]."""
        return self.encoder.posterior(self.encoder(context).sum(1))


def with_z(obs: Tensor, z: Tensor) -> Tensor:
    """(s, z) of every step, from [M, B, O] and [M, Z]."""
    return torch.cat([obs, z.unsqueeze(1).expand(-1, obs.shape[1], -1)], -1)
