"""The one loop: collect, adapt, collect, ..., meta-update; the same for training and for evaluation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import gymnasium as gym
import torch
from torch import Generator, Tensor, nn

from .device import one_thread
from .errors import ConfigError
from .types import Agent, Family, Rollout, Step, Tasks, Trial

B = TypeVar("B")
Metrics = dict[str, float]


def opening(family: Family, obs: Tensor, played: Sequence[Rollout]) -> Step:
    """A round's first step: it carries the action and reward that ended the round before, with done = 1.

    Where there is no round before, or it had another number of episodes, the three are zeros.
    """
    episodes = obs.shape[:2]
    if played and played[-1].reward.shape[1:] == episodes:
        action, reward = closing(played[-1])
        return Step(obs, action, reward, torch.ones_like(reward))
    zero, space = torch.zeros(episodes, device=obs.device), family.action_space
    kind = torch.int64 if isinstance(space, gym.spaces.Discrete) else zero.dtype
    return Step(obs, zero.new_zeros(*episodes, *space.shape, dtype=kind), zero, zero)


def closing(rollout: Rollout) -> tuple[Tensor, Tensor]:
    """The action and the reward of each episode's last played step, [N, E, ...] and [N, E]."""
    last = rollout.valid.sum(0) - 1
    tasks, episodes = (torch.arange(size, device=last.device) for size in last.shape)
    place = last, tasks[:, None], episodes
    return rollout.action[place], rollout.reward[place]


def next_round(
    family: Family, tasks: Tasks, episodes: int, rng: Generator, played: Sequence[Rollout]
) -> Tensor:
    """Start a trial's next round, `played` being the rounds before it; the first observations, [N, E, O]."""
    deal, before = getattr(family, "deal", None), sum(r.reward.shape[2] for r in played)
    obs: Tensor = deal(tasks, episodes, rng, before) if deal else family.reset(tasks, episodes, rng)
    return obs


@torch.no_grad()
@one_thread()
def collect(
    family: Family, agent: Agent[B], belief: B, step: Step, explore: bool = True
) -> tuple[Rollout, B]:
    """Play one round from its first step: every episode once, to the horizon, all side by side."""
    observations, record = [step.obs], []
    ended = torch.zeros_like(step.reward, dtype=torch.bool)
    for _ in range(family.horizon):
        act, belief = agent.act(belief, step, explore)
        outcome = family.step(act.action)
        reward = outcome.reward.masked_fill(ended, 0.0)
        ended = ended | outcome.terminated
        observations.append(outcome.obs)
        record.append((act.action, reward, ended, outcome.target, act.log_prob, act.value))
        step = Step(outcome.obs, act.action, reward, ended.to(reward.dtype))
    action, reward, terminated, target, log_prob, value = map(torch.stack, zip(*record, strict=True))
    obs, next_obs = shifted(observations)
    return Rollout(obs, action, reward, terminated, next_obs, target, log_prob, value), belief


def shifted(observations: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Observations 0 to T - 1, and 1 to T, [T, ...] each; of one step, pictures perhaps, without a copy."""
    if len(observations) == 2:
        return observations[0].unsqueeze(0), observations[1].unsqueeze(0)
    whole = torch.stack([*observations])
    return whole[:-1], whole[1:]


def run_trial(
    family: Family,
    agent: Agent[Any],
    tasks: Tasks,
    rounds: Sequence[int],
    rng: Generator,
    greedy_last: bool = False,
) -> Trial:
    """Play `rounds[k]` episodes of every task in round k, and adapt between each two rounds."""
    if not rounds or min(rounds) < 1:
        raise ConfigError(f"rounds is {[*rounds]}; allowed: one or more numbers of episodes, each 1 or more")
    belief, played = agent.begin(len(tasks.ids), rounds[0]), list[Rollout]()
    for k, episodes in enumerate(rounds):
        if played:
            belief = agent.adapt(belief, played[-1])
        step = opening(family, next_round(family, tasks, episodes, rng, played), played)
        explore = not (greedy_last and k + 1 == len(rounds))
        rollout, belief = collect(family, agent, belief, step, explore)
        played.append(rollout)
    return Trial(tasks, tuple(played))


def milestones(rounds: int) -> list[int]:
    """Which of many rounds to tell of: all of ten, or else 0, 1, 2, 5, 10, 20, 50, ... and the last."""
    if rounds <= 10:
        return [*range(rounds)]
    found = [0, *(d * 10**p for p in range(len(str(rounds))) for d in (1, 2, 5))]
    return [k for k in found if k < rounds - 1] + [rounds - 1]


def returns(trial: Trial) -> Metrics:
    """The mean return of a trial's rounds, at its milestones, and where there are more, of all together."""
    mean, count = torch.stack([r.returns.mean() for r in trial.rounds]).tolist(), len(trial.rounds)
    total = {} if count <= 10 else {"return_total": sum(mean)}
    return {f"return_{k}": mean[k] for k in milestones(count)} | total


@one_thread()
def train(
    family: Family,
    agent: Agent[Any],
    rng: Generator,
    *,
    iterations: int,
    rounds: Sequence[int] = (20, 20),
    meta_batch_size: int = 20,
    start: int = 0,
    after: Callable[[int, Trial, Metrics], None] | None = None,
) -> list[Metrics]:
    """Meta-train: each iteration plays one trial in `meta_batch_size` fresh tasks, then updates the agent.

    `start` continues an earlier training; `after(iteration, trial, metrics)` is called when an
    iteration is complete. Returns the metrics of each iteration, `return_k` being round k's mean return,
    of about ten rounds where there are many, and `return_total` that of all of them.
    """
    if iterations < 1:
        raise ConfigError(f"iterations is {iterations}; allowed: 1 or more")
    agent.check_rounds(rounds)
    history = []
    with training(agent):
        for iteration in range(start, iterations):
            tasks = family.sample_tasks(meta_batch_size, "train", rng)
            trial = run_trial(family, agent, tasks, rounds, rng)
            metrics = returns(trial) | agent.meta_update(trial)
            history.append(metrics)
            if after:
                after(iteration, trial, metrics)
    return history


@contextmanager
def training(agent: Agent[Any]) -> Iterator[None]:
    """Put a module into its training mode, where those with answers to spare leave them to the update."""
    mode: Any = agent.train if isinstance(agent, nn.Module) else lambda training: None
    mode(True)
    try:
        yield
    finally:
        mode(False)
