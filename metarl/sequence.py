"""A trial as one sequence: what a learner with a memory saw, did and earned, from first step to last."""

from collections.abc import Sequence as Several
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import ConfigError
from .types import Rollout, Trial


class Sequence(NamedTuple):
    """L steps of B = N E learners; those that were not played are at the end."""

    obs: Tensor  # [L, B, O]
    last_action: Tensor  # [L, B, ...]; zeros before the first step, as the next two
    last_reward: Tensor  # [L, B]
    done: Tensor  # [L, B], 1 where an episode ended with the step before
    action: Tensor  # [L, B, ...]
    reward: Tensor  # [L, B]
    next_obs: Tensor  # [L, B, O]
    terminated: Tensor  # [L, B], bool
    target: Tensor  # [L, B, ...]
    log_prob: Tensor  # [L, B]
    value: Tensor  # [L, B]
    valid: Tensor  # [L, B], bool: played; at the end of the sequence where not

    def rewarded_by_target(self) -> "Sequence":
        """The steps as training may see them: the family's target is their reward."""
        return self._replace(reward=require_target(self.target * self.valid))

    def learners(self, columns: Tensor | slice) -> "Sequence":
        """The steps of some of the learners."""
        return Sequence(*(x[:, columns] for x in self))


def require_target(target: Tensor, asked: str = "learn_from_target is True; allowed: false") -> Tensor:
    """The target as it is; ConfigError where the family shows none, and there is nothing to learn from.

    asked: the agent's setting that wants it, its value, and what is allowed instead.
    """
    if not target.any():
        raise ConfigError(f"agent.{asked}, as this family shows no target")
    return target


def unroll(trial: Trial) -> Sequence:
    """The rounds of a trial one after the other, without the steps that were not played."""
    return steps_of(trial.rounds)


def steps_of(rounds: Several[Rollout]) -> Sequence:
    """The same of some rounds of as many episodes each."""
    opens = [_opens(rollout, k) for k, rollout in enumerate(rounds)]
    valid = _joined([r.valid for r in rounds])
    done, obs, action, reward, next_obs, terminated, target, log_prob, value = (
        _played_first(_joined(parts), valid)
        for parts in (opens, *(list(x) for x in zip(*map(_parts, rounds), strict=True)))
    )
    valid = valid.sort(dim=0, descending=True, stable=True)[0]
    last_action, last_reward = delayed(action), delayed(reward)
    played = (action, reward, next_obs, terminated, target, log_prob, value)
    return Sequence(obs, last_action, last_reward, done, *played, valid)


def _parts(r: Rollout) -> tuple[Tensor, ...]:
    return r.obs, r.action, r.reward, r.next_obs, r.terminated, r.target, r.log_prob, r.value


def _opens(rollout: Rollout, k: int) -> Tensor:
    """1 at the first step of each round but the very first, [T, N, E]."""
    opens = torch.zeros_like(rollout.reward)
    opens[0] = float(k > 0)
    return opens


def _joined(rounds: list[Tensor]) -> Tensor:
    """[T, N, E, ...] of each round to [L, B, ...]."""
    return torch.cat(rounds).flatten(1, 2)


def _played_first(x: Tensor, valid: Tensor) -> Tensor:
    """Each learner's played steps in order, then the others."""
    if valid.all():
        return x
    order = valid.sort(dim=0, descending=True, stable=True)[1]
    return x[order, torch.arange(valid.shape[1], device=x.device)]


def delayed(x: Tensor) -> Tensor:
    """Each step's predecessor; zeros before the first."""
    return torch.cat([torch.zeros_like(x[:1]), x[:-1]])
