"""MAML-TRPO: Finn et al. 2017, "Model-Agnostic Meta-Learning", algorithm 3, exactly second order.

Minimise over θ (and, with Meta-SGD, α) the mean over tasks i of L_i(φ_i(θ)), φ_i = θ - α ∇L_i(θ), by a
trust-region step whose KL divergence is measured between the adapted policies before and after it.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import gymnasium as gym
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn

from metarl import (
    STRICT,
    Act,
    Batch,
    ConfigError,
    GaussianMlp,
    InnerStep,
    MetaObjective,
    Rollout,
    Step,
    Trial,
    conjugate_gradient,
    gae,
    inner_loops,
    largest_step,
    line_search,
    linear_baseline,
    normalised,
    remaining,
)


class Belief(NamedTuple):
    """What MAML knows of each task: its adapted parameters, and how often it has adapted them."""

    params: Tensor  # [N, P]
    steps: int


class MamlTrpo(nn.Module):
    """A Gaussian policy whose initial parameters are learned so that a gradient step adapts them."""

    @dataclass(frozen=True, config=STRICT)
    class Config:
        """Settings, named as in the papers."""

        hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 64)
        """Widths of the policy's hidden layers."""
        activation: Literal["tanh", "relu"] = "tanh"
        """The hidden layers' nonlinearity."""
        initial_std: PositiveFloat = 1.0
        """Standard deviation of the untrained policy."""
        output_gain: PositiveFloat = 0.01
        """Scale of the last layer's initial weights: a small one starts near a mean of zero everywhere."""
        inner_lr: PositiveFloat = 0.1
        """Size of the first adaptation step; its initial value where it is learned."""
        later_lr: PositiveFloat | None = None
        """Size of the adaptation steps after the first; none: as the first."""
        learn_inner_lr: bool = False
        """Learn a step size for each parameter (Meta-SGD, Li et al. 2017)."""
        exploration: PositiveFloat = 1.0
        """How many times wider the noise is before the first adaptation: the unseen teaches nothing."""
        reward_prediction: NonNegativeFloat = 0.0
        """Weight of predicting the reward, in the first adaptation's loss: its errors tell tasks apart."""
        credit: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] | None = None
        """Weight of each round after the first in what is trained (MAML++, 2019); none: only the last."""
        first_order: bool = False
        """Ignore that the adaptation's gradient depends on the initial parameters (FOMAML)."""
        gamma: Annotated[float, Field(gt=0, le=1)] = 0.99
        """Discount."""
        gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
        """Decay of generalised advantage estimation."""
        outer_gae_lambda: Annotated[float, Field(ge=0, le=1)] | None = None
        """The same for the last round, which only the meta-update reads; none: as in all others."""
        max_kl: PositiveFloat = 0.01
        """Size of the trust region."""
        anneal: PositiveInt | None = None
        """Meta-updates over which the length of a step falls linearly to 0; none: it stays."""
        cg_iterations: PositiveInt = 10
        """Conjugate gradient iterations."""
        damping: NonNegativeFloat = 1e-5
        """Multiple of the identity that is added to the curvature."""
        curvature_fraction: Annotated[float, Field(ge=0.001, le=1)] = 1.0
        """Share of the time steps, rounded to 1/k, that the curvature is taken on; the gradient uses all."""

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: gym.spaces.Box,
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.rng = rng
        if not isinstance(action_space, gym.spaces.Box):
            raise ConfigError(f"action_space is {action_space}; allowed for maml_trpo: a Box")
        inputs, outputs = observation_space.shape[0], action_space.shape[0]
        shape = c.hidden, c.activation, c.initial_std, c.output_gain, c.reward_prediction > 0
        self.policy = GaussianMlp(inputs, outputs, rng, *shape)
        size = len(self.policy.flat) if c.learn_inner_lr else 1
        self.register_buffer("alpha", torch.full((size,), c.inner_lr, device=rng.device))
        self.alpha: Tensor
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64, device=rng.device))
        self.updates: Tensor
        self.register_buffer("widening", self.policy.widening(c.exploration), persistent=False)
        self.widening: Tensor

    # --- the agent's side of a trial

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """There has to be something after an adaptation, and credit for it."""
        steps, credit = len(rounds) - 1, self.config.credit
        if steps < 1:
            raise ConfigError(
                f"rounds is {[*rounds]}; allowed: 2 or more, as MAML trains what follows a step"
            )
        if credit and (len(credit) != steps or not sum(credit)):
            raise ConfigError(
                f"agent.credit is {[*credit]}; allowed for {len(rounds)} rounds: none, or a list of {steps}, "
                "a weight for each round after the first, not all 0"
            )

    def begin(self, tasks: int, episodes: int) -> Belief:
        """All tasks start from the meta-learned parameters θ, with wider noise."""
        return Belief((self.policy.flat + self.widening).expand(tasks, -1), 0)

    def act(self, belief: Belief, step: Step, explore: bool = True) -> tuple[Act, Belief]:
        """Sample from each task's policy, or take its mean."""
        policy = self.policy.batched(belief.params, step.obs)
        action = policy.sample(self.rng) if explore else policy.mode
        return Act(action, policy.log_prob(action), torch.zeros_like(step.reward)), belief

    @torch.no_grad()
    def adapt(self, belief: Belief, rollout: Rollout) -> Belief:
        """φ ← φ - α ∇L(φ): one policy-gradient step on each task's own round."""
        step = self.inner_steps(belief.steps + 1)[-1]
        batch = self.batch(rollout, self.advantages(rollout, self.config.gae_lambda), belief.steps)
        loops = inner_loops(self.policy, belief.params, self.alpha, [step], [batch])
        return Belief(torch.cat([loop.phi[-1] for loop in loops]), belief.steps + 1)

    # --- learning across tasks

    @torch.no_grad()
    def meta_update(self, trial: Trial) -> dict[str, float]:
        """One trust-region step on the meta-parameters."""
        c, meta = self.config, self.meta_parameters
        played = self.judged(trial)
        batches = [self.batch(*r) for r in played]
        now = self.objective(meta, batches)
        gradient, old = now.gradient(), now.policies()
        every = round(1 / c.curvature_fraction)
        sketch = now if every == 1 else self.objective(meta, [self.batch(*r, every) for r in played])

        def curvature(v: Tensor) -> Tensor:
            return sketch.fisher(v) + c.damping * v

        def evaluate(scale: float) -> tuple[float, float]:
            return self.objective(meta + scale * step, batches).compare(old)

        direction, image = conjugate_gradient(curvature, -gradient, c.cg_iterations)
        step = largest_step(direction, image, self.radius)
        found = line_search(evaluate, self.radius)
        self.updates += 1
        if found.scale:  # else the step may not even be finite
            self.meta_parameters = meta + found.scale * step
        return {
            "kl": found.kl,
            "improvement": found.improvement,
            "step_scale": found.scale,
            "gradient_norm": gradient.norm().item(),
            "policy_std": self.policy.log_std.exp().mean().item(),
            "inner_lr": self.alpha.mean().item(),
        }

    @property
    def radius(self) -> float:
        """The largest divergence now: a step's length is its root."""
        return self.config.max_kl * remaining(self.updates, self.config.anneal) ** 2

    def judged(self, trial: Trial) -> list[tuple[Rollout, Tensor, int]]:
        """Each round with its advantages, and its number; the last is the meta-update's alone."""
        c, last = self.config, len(trial.rounds) - 1
        outer = c.gae_lambda if c.outer_gae_lambda is None else c.outer_gae_lambda
        decays = [c.gae_lambda] * last + [outer]
        pairs = enumerate(zip(trial.rounds, decays, strict=True))
        return [(rollout, self.advantages(rollout, decay), k) for k, (rollout, decay) in pairs]

    def advantages(self, rollout: Rollout, decay: float) -> Tensor:
        """A_t of a round, [T, N, E], over each task's own baseline, normalised within the task."""
        c = self.config
        value = linear_baseline(rollout, c.gamma)
        end = torch.zeros_like(value[0])  # the horizon is an end: the baseline knows the time
        advantage = gae(rollout.reward, value, end, rollout.terminated, c.gamma, decay)
        return normalised(advantage, rollout.valid)

    def batch(self, rollout: Rollout, advantage: Tensor, k: int, every: int = 1) -> Batch:
        """Round k's steps with their advantages; before the first adaptation the rewards are predicted."""
        return Batch.of(rollout, advantage, every, self.config.reward_prediction if k == 0 else 0.0)

    def objective(self, meta: Tensor, batches: list[Batch]) -> MetaObjective:
        """The loss on the rounds after adaptation, at some meta-parameters."""
        c, steps = self.config, len(batches) - 1
        credit = c.credit or [0.0] * (steps - 1) + [1.0]
        shares = [weight / sum(credit) for weight in credit]
        how = self.inner_steps(steps), batches, shares, self.widening, c.first_order
        return MetaObjective(self.policy, meta, self.alpha, *how)

    def inner_steps(self, steps: int) -> list[InnerStep]:
        """The first `steps` adaptation steps; the first one also takes the wider noise back."""
        c = self.config
        later = InnerStep(c.later_lr / c.inner_lr if c.later_lr else 1.0)
        return [InnerStep(1.0, -self.widening), *[later] * (steps - 1)][:steps]

    @property
    def meta_parameters(self) -> Tensor:
        """θ [P], followed by α [P] where it is learned, in one vector."""
        theta = self.policy.flat
        return torch.cat([theta, self.alpha]) if self.config.learn_inner_lr else theta

    @meta_parameters.setter
    def meta_parameters(self, flat: Tensor) -> None:
        self.policy.assign(flat[: self.policy.size])
        if self.config.learn_inner_lr:
            self.alpha.copy_(flat[self.policy.size :])
