"""Random tabular MDPs, to be learned while one is paid in them: Duan et al. 2016 (RL²), section 3.1.2.

A task is an MDP of 10 states and 5 actions, drawn as in Osband et al. 2013: P(· | s, a) from
Dirichlet(1, ..., 1) and r̄(s, a) from N(1, 1). An episode has 10 steps, the first from state 0, and a step
pays r̄(s, a) and noise from N(0, 1).
"""

import gymnasium as gym
import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from metarl import Bounds, ConfigError, Outcome, Published, Split, TaskError, TaskParameter, Tasks

from .tasks import CONTINUOUS, check_request, from_pool

MEAN = 1.0  # of the mean rewards, whose standard deviation is 1 as that of the noise around them
FURTHEST = 10.0  # standard deviations from it that are accepted: no generator draws as far
ROUNDING = 1e-3  # of a sum of probabilities
POOL = 1000  # tasks in each fixed pool


class TabularMdpRl2:
    """The MDPs of RL²; out of distribution their transitions are sparse, from Dirichlet(0.1, ..., 0.1)."""

    name = "tabular-mdp/rl2-2016"
    summary = "random MDPs of 10 states and 5 actions, told one-hot, 10 steps (Duan et al. 2016)"
    horizon = 10
    states = 10  # S
    actions = 5  # A
    shared_splits = False
    published: tuple[Published, ...] = ()  # the paper's returns are totals over many episodes

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.observation_space = gym.spaces.Box(0.0, 1.0, (self.states,))
        self.action_space = gym.spaces.Discrete(self.actions)
        self.task_space = self._task_space()
        self.pools = {"test": self._pool(1.0, seed=1), "ood": self._pool(0.1, seed=2)}

    # --- tasks

    def _task_space(self) -> tuple[TaskParameter, ...]:
        """P(s' | s, a) as p_s_a_s', then r̄(s, a) as r_s_a; what is not named is the distribution's mean."""
        low, high = MEAN - FURTHEST, MEAN + FURTHEST
        pairs = [f"{s}_{a}" for s in range(self.states) for a in range(self.actions)]
        moves = [f"p_{pair}_{s}" for pair in pairs for s in range(self.states)]
        even = 1 / self.states
        p = [TaskParameter(name, "", 0.0, 1.0, 0.0, 1.0, default=even) for name in moves]
        r = [TaskParameter(f"r_{pair}", "", low, high, low, high, default=MEAN) for pair in pairs]
        return (*p, *r)

    def _pool(self, concentration: float, seed: int) -> Tensor:
        """Fixed MDPs whose transitions are from Dirichlet(concentration, ...), [M, S A S + S A]."""
        rng, pairs = np.random.RandomState(seed), self.states * self.actions
        p = rng.dirichlet(np.full(self.states, concentration), (POOL, pairs)).reshape(POOL, -1)
        r = rng.normal(MEAN, 1.0, (POOL, pairs))
        pool = torch.tensor(np.concatenate([p, r], 1), device=self.device)
        return pool.to(torch.get_default_dtype())

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """From the split's pool, or for training drawn anew."""
        check_request(n, split)
        if split in self.pools:
            return from_pool(self.pools[split], n, split, rng)
        if n is None:
            raise ConfigError(f"the {split} split is continuous and has no whole: give a number of tasks")
        # exponentials over their sum are Dirichlet(1, ..., 1)
        e = torch.empty(n, self.states * self.actions, self.states, device=self.device)
        e.exponential_(generator=rng)
        r = torch.empty(e.shape[:2], device=self.device).normal_(MEAN, 1.0, generator=rng)
        params = torch.cat([(e / e.sum(-1, keepdim=True)).flatten(1), r], 1)
        return Tasks(params, torch.full((n,), CONTINUOUS, device=self.device))

    def model(self, tasks: Tasks) -> tuple[Tensor, Tensor]:
        """P(s' | s, a), [N, S, A, S], and r̄(s, a), [N, S, A]; TaskError where a P does not sum to 1."""
        pairs = self.states * self.actions
        p, r = tasks.params.split([pairs * self.states, pairs], -1)
        p = p.view(-1, self.states, self.actions, self.states)
        wrong = (p.sum(-1) - 1).abs() > ROUNDING
        if wrong.any():
            n, s, a = wrong.nonzero()[0].tolist()
            names, total = f"p_{s}_{a}_0 to p_{s}_{a}_{self.states - 1}", p[n, s, a].sum().item()
            raise TaskError(f"the sum of {names} is {total:g}; allowed: 1, as of all probabilities")
        return p, r.view(-1, self.states, self.actions)

    # --- episodes

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """All episodes in state 0; what happens in them will be drawn from `rng`, too."""
        everyone = torch.ones(len(tasks.ids), episodes, dtype=torch.bool, device=self.device)
        self._state = torch.zeros_like(everyone, dtype=torch.int64)
        return self.restart(everyone, tasks, rng)

    def restart(self, ended: Tensor, tasks: Tasks, rng: Generator) -> Tensor:
        """Start the episodes that a mask [N, E] marks anew; all observations, [N, E, S].

        The tasks of all other episodes have to be those that they are in.
        """
        p, self._reward = self.model(tasks)
        cumulated = p.cumsum(-1)
        self._cumulated = cumulated / cumulated[..., -1:]  # ends at exactly 1
        self._rows = torch.arange(len(p), device=self.device)[:, None]  # [N, 1]
        self._rng, self._state = rng, self._state.masked_fill(ended, 0)
        return self._observation()

    def step(self, action: Tensor) -> Outcome:
        """Draw s' by the inverse of P(· | s, a)'s distribution function, and the reward's noise.

        The target is r̄(s, a), the reward without it.
        """
        here = self._rows, self._state, action
        u = torch.rand(action.shape, generator=self._rng, device=self.device)
        noise = torch.empty_like(u).normal_(generator=self._rng)
        mean = self._reward[here]
        self._state = (self._cumulated[here] <= u[..., None]).sum(-1)
        never = torch.zeros_like(mean, dtype=torch.bool)
        return Outcome(self._observation(), mean + noise, never, mean)

    def _observation(self) -> Tensor:
        return one_hot(self._state, self.states).to(torch.get_default_dtype())

    # --- what can be earned

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: act uniformly at random. Oracle: value iteration. Both are exact, by dynamic programming."""
        p, r = self.model(tasks)
        chance = best = r.new_zeros(r.shape[:2])  # V(s) of the steps that are left, [N, S]
        for _ in range(self.horizon):
            # Q(s, a) = r̄(s, a) + Σ_s' P(s' | s, a) V(s')
            chance = (r + torch.einsum("nsat,nt->nsa", p, chance)).mean(-1)
            best = (r + torch.einsum("nsat,nt->nsa", p, best)).amax(-1)
        return Bounds(chance[:, 0], best[:, 0])
