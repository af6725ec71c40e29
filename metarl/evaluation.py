"""Evaluation: the trial of training, played in held-out tasks and scored round by round."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from . import statistics
from .device import one_thread
from .loop import run_trial
from .types import Agent, Bounds, Family, Split, Tasks


class Evaluation(NamedTuple):
    """The returns of one agent in N tasks after 0, 1, 2, ... adaptations."""

    family: str
    split: Split | Literal["given"]
    tasks: Tasks
    returns: tuple[Tensor, ...]  # one a round, [N, E_k], undiscounted
    bounds: Bounds

    @property
    def scores(self) -> np.ndarray:
        """Each task's mean return in each round, [R, N]; where the agent diverged, the task's floor."""
        floor = self.bounds.floor.double()
        means = [r.double().mean(1) for r in self.returns]
        return np.stack([torch.where(m.isfinite(), m, floor).cpu().numpy() for m in means])

    @property
    def diverged(self) -> int:
        """How many tasks' returns are not finite numbers in some round."""
        return int(torch.stack([~r.isfinite().all(1) for r in self.returns]).any(0).sum())

    def summary(self) -> dict[str, Any]:
        """Every round's statistics, with floor, oracle, gain and regret, as plain numbers."""
        floor, oracle = (bound.double().mean().item() for bound in self.bounds)
        rounds = [statistics.summary(scores[None]) for scores in self.scores]
        first, last = rounds[0]["mean"], rounds[-1]["mean"]
        return {
            "family": self.family,
            "split": self.split,
            "tasks": len(self.tasks.ids),
            "diverged": self.diverged,
            "rounds": rounds,
            "floor": floor,
            "oracle": oracle,
            "gain": last - first,
            "regret": oracle - last,
        }

    def __str__(self) -> str:
        """A line a round: what a person wants to see of an adaptation curve."""
        lines = [f"{self.family}, {self.split} split, {len(self.tasks.ids)} tasks"]
        summary = self.summary()
        for k, r in enumerate(summary["rounds"]):
            low, high = r["ci95"]
            lines.append(f"  after {k} adaptations: {r['mean']:9.2f}  [{low:.2f}, {high:.2f}]")
        lines.append(f"  floor {summary['floor']:.2f}, oracle {summary['oracle']:.2f}")
        return "\n".join(lines)


@one_thread()
def evaluate(
    family: Family,
    agent: Agent[Any],
    rng: Generator,
    *,
    rounds: Sequence[int] = (20, 20, 20, 20),
    split: Split = "test",
    tasks: Tasks | None = None,
    greedy_last: bool = False,
) -> Evaluation:
    """Let the agent adapt in every task of a split's pool, or in given tasks, `rounds[k]` episodes at a time.

    Nothing is learned across tasks here. Raises ConfigError for an unknown split.
    """
    named: Split | Literal["given"] = "given"
    if tasks is None:
        named, tasks = split, family.sample_tasks(None, split, rng)
    trial = run_trial(family, agent, tasks, rounds, rng, greedy_last)
    returns = tuple(rollout.returns for rollout in trial.rounds)
    return Evaluation(family.name, named, tasks, returns, family.bounds(tasks))
