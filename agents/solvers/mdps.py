"""Reference solvers for tabular MDPs that are played in episodes: posterior sampling, optimism, and neither.

All plan by value iteration over the steps of an episode, and in all but BEB a plan holds for a whole episode.
They differ in the MDP that they plan for; without exploration that is the posterior's mean for all.
"""

from abc import abstractmethod
from typing import Annotated, Any, NamedTuple

import gymnasium as gym
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from metarl import STRICT, Act, Step

from .mdp_planning import Posterior, extended_value_iteration, value_iteration
from .solver import Solver

ROUNDING = 1e-5  # relative difference of two values that counts as none


class MdpBelief(NamedTuple):
    """What each learner knows of its MDP, what it is up to, and where it is."""

    alpha: Tensor  # [N, E, S, A, S], as in Posterior
    mu: Tensor  # [N, E, S, A]
    tau: Tensor  # [N, E, S, A]
    plan: Tensor  # [N, E, H, S, A], the value of each action at each step of an episode
    place: Tensor  # [N, E], the state that the last action was taken in
    time: Tensor  # [N, E], actions taken in this episode; 0 only before the first of all

    @property
    def known(self) -> Posterior:
        """What it knows alone."""
        return Posterior(self.alpha, self.mu, self.tau)


class MdpSolver(Solver[MdpBelief]):
    """A learner that counts, plans when an episode starts, and acts by its plan."""

    plays = ("tabular-mdp/",)

    @dataclass(frozen=True, config=STRICT)
    class Config(Solver.Config):
        """The prior, by default RL²'s: near 0, `alpha` and `tau` make estimates those of the data alone."""

        horizon: PositiveInt = 10
        """Steps of an episode, for which plans are made."""
        alpha: PositiveFloat = 1.0
        """α of the Dirichlet prior of P(· | s, a), the same for all states that may follow."""
        mu: float = 1.0
        """Mean of the normal prior of a mean reward r̄(s, a); RL²'s paper seems to have taken 0 for PSRL."""
        tau: PositiveFloat = 1.0
        """Precision of that prior, in visits."""

    config: Config

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: "gym.spaces.Discrete[Any]",
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, rng, config)
        self.states = observation_space.shape[0]

    def begin(self, tasks: int, episodes: int) -> MdpBelief:
        """The prior, and nothing planned."""
        c = self.config
        pairs = torch.ones(tasks, episodes, self.states, self.actions, device=self.rng.device)
        alpha = c.alpha * pairs[..., None].repeat(1, 1, 1, 1, self.states)
        plan = torch.zeros_like(pairs)[:, :, None].repeat(1, 1, c.horizon, 1, 1)
        nowhere = torch.zeros(tasks, episodes, dtype=torch.int64, device=self.rng.device)
        return MdpBelief(alpha, c.mu * pairs, c.tau * pairs, plan, nowhere, nowhere)

    def act(self, belief: MdpBelief, step: Step, explore: bool = True) -> tuple[Act, MdpBelief]:
        """Learn from the step before, plan where it is time to, and take the plan's best action."""
        begun = belief.time > 0
        known, fresh = belief.known.after(belief.place, step, begun), ~begun | (step.done > 0)
        plan, due = belief.plan, self.due(fresh)
        if due.any():
            values = self.values(known) if explore else self.mean_values(known)
            plan = torch.where(due[..., None, None, None], values, plan)
        time, place = belief.time.masked_fill(fresh, 0), step.obs.argmax(-1)
        action = self.choose(self.now(plan, time, place), explore)
        return self.answer(action), MdpBelief(*known, plan, place, time + 1)

    def now(self, plan: Tensor, time: Tensor, place: Tensor) -> Tensor:
        """The plan's values of the actions at a time and a place, [N, E, A]."""
        n, e = (torch.arange(size, device=time.device) for size in time.shape)
        return plan[n[:, None], e, time.clamp(max=self.config.horizon - 1), place]

    def due(self, fresh: Tensor) -> Tensor:
        """Who plans anew, [N, E], given who starts an episode."""
        return fresh

    def choose(self, value: Tensor, explore: bool) -> Tensor:
        """The best action by the values [N, E, A], or one of those that are as good; [N, E]."""
        best = value.amax(-1, keepdim=True)
        return self.any_best(torch.where(value < best - ROUNDING * best.abs(), value, best))

    @abstractmethod
    def values(self, known: Posterior) -> Tensor:
        """The value of every action in an MDP that may be the true one, [N, E, H, S, A]."""

    def mean_values(self, known: Posterior) -> Tensor:
        """Those in the posterior's mean."""
        return value_iteration(known.transition, known.mu, self.config.horizon)


class Psrl(MdpSolver):
    """Posterior sampling: Strens 2000; Osband, Russo & Van Roy 2013, algorithm 1."""

    def values(self, known: Posterior) -> Tensor:
        """Those of one MDP from the posterior."""
        return value_iteration(*known.sample(self.rng), self.config.horizon)


class OptimisticPsrl(MdpSolver):
    """Optimistic posterior sampling (OPSRL): the best of several MDPs from the posterior, as in TabulaRL.

    The comparison is that of Osband & Van Roy 2017, "Why is posterior sampling better than optimism".
    """

    @dataclass(frozen=True, config=STRICT)
    class Config(MdpSolver.Config):
        """How optimistic it is."""

        samples: PositiveInt = 3
        """MDPs drawn for each plan."""

    config: Config

    def values(self, known: Posterior) -> Tensor:
        """The envelope max_k Q_k(s, a) of the samples k, at each step."""
        envelope = value_iteration(*known.sample(self.rng), self.config.horizon)
        for _ in range(self.config.samples - 1):
            another = value_iteration(*known.sample(self.rng), self.config.horizon)
            envelope = torch.maximum(envelope, another)
        return envelope


class Ucrl2(MdpSolver):
    """UCRL2: Jaksch, Ortner & Auer 2010, figure 1, that plans for the steps of an episode at its start.

    At step t, with n of what was seen from (s, a), plausible are the MDPs with
      |r̃ - r̂| <= c √(7 ln(2 S A t / δ) / 2 n) and ‖P̃ - P̂‖₁ <= c √(14 S ln(2 A t / δ) / n).
    The estimates r̂ and P̂ are the posterior's means.
    """

    @dataclass(frozen=True, config=STRICT)
    class Config(MdpSolver.Config):
        """What counts as plausible."""

        scale: NonNegativeFloat = 0.04
        """c, a factor of both radii; 1 is what was proven, and explores far too long."""
        delta: Annotated[float, Field(gt=0, lt=1)] = 0.05
        """δ, the probability that the true MDP is not among the plausible ones."""

    config: Config

    def values(self, known: Posterior) -> Tensor:
        """Those of the best of all plausible MDPs."""
        reward, transition = self.radii(known)
        return extended_value_iteration(known.transition, known.mu + reward, transition, self.config.horizon)

    def radii(self, known: Posterior) -> tuple[Tensor, Tensor]:
        """How far rewards and transitions may be from their estimates, [N, E, S, A] each."""
        c, pairs = self.config, self.states * self.actions
        paid, moved = known.tau - c.tau, known.alpha.sum(-1) - c.alpha * self.states
        t = paid.sum((-2, -1), keepdim=True) + 1
        reward = (7 * (2 * pairs * t / c.delta).log() / (2 * paid.clamp(min=1))).sqrt()
        transition = (14 * self.states * (2 * self.actions * t / c.delta).log() / moved.clamp(min=1)).sqrt()
        return c.scale * reward, c.scale * transition


class Beb(MdpSolver):
    """Bayesian exploration bonus (BEB): Kolter & Ng 2009, who plan anew at every step."""

    @dataclass(frozen=True, config=STRICT)
    class Config(MdpSolver.Config):
        """How much the unknown is worth."""

        beta: NonNegativeFloat = 15.0
        """β, the bonus's scale; 2 H² is what was proven."""

    config: Config

    def due(self, fresh: Tensor) -> Tensor:
        """All: the bonus shrinks with each step."""
        return torch.ones_like(fresh)

    def values(self, known: Posterior) -> Tensor:
        """Those of the mean MDP that pays β / (1 + Σ_s' α(s, a, s')) besides."""
        bonus = self.config.beta / (1 + known.alpha.sum(-1))
        return value_iteration(known.transition, known.mu + bonus, self.config.horizon)


class MdpGreedy(MdpSolver):
    """Certainty equivalence: act as if the posterior's mean were the MDP."""

    def values(self, known: Posterior) -> Tensor:
        """Those in the posterior's mean."""
        return self.mean_values(known)


class MdpEpsilonGreedy(MdpGreedy):
    """As greedy, but for a share ε of steps whose action is uniformly random."""

    @dataclass(frozen=True, config=STRICT)
    class Config(MdpSolver.Config):
        """How often it explores."""

        epsilon: Annotated[float, Field(ge=0, le=1)] = 0.05
        """ε, the probability of a random action; none are where exploration is switched off."""

    config: Config

    def choose(self, value: Tensor, explore: bool) -> Tensor:
        """Greedy, or random where a coin says so."""
        best, shape = super().choose(value, explore), value.shape[:-1]
        coin = torch.rand(shape, generator=self.rng, device=value.device)
        chance = torch.randint(self.actions, shape, generator=self.rng, device=value.device)
        return torch.where(coin < self.config.epsilon * explore, chance, best)
