"""Evaluation: the trial of training, played in held-out tasks, scored round by round, and put to the proof.

A score that rises over a trial need not come from adaptation. So the last round is played twice more, from
the same random numbers: by an agent that holds another task's memory, and by one whose memory was wiped.
Where adaptation is what earns the score, both have to fall behind it.
"""

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from . import statistics
from .device import one_thread
from .loop import collect, milestones, next_round, opening, run_trial
from .types import Agent, Bounds, Family, Rollout, Split, Step, Tasks, Trial

SHORT = 6  # rounds of a trial that a table has room for
LENGTHS = (10, 25, 50, 75, 100, 250, 500, 1000)  # rounds after which the total so far is told
CONTROLS = {"shuffled": "another task's memory", "wiped": "memory wiped"}


def shown(rounds: int) -> list[int]:
    """The rounds of a trial that a table shows: all of a few; of many the first two, the last, and three."""
    if rounds <= SHORT:
        return [*range(rounds)]
    found = milestones(rounds)
    places = np.linspace(1, len(found) - 1, min(SHORT, len(found)) - 1).round().astype(int)
    return [found[k] for k in (0, *places)]


def unit(agent: Any, rounds: Sequence[int]) -> str:
    """What is counted between the rounds: the episodes that a learner has seen, or else the adaptations.

    Episodes where each round is one, and of an agent that says so by an attribute `unit`, as recurrent ones
    whose episodes side by side have a memory each.
    """
    default = "episodes" if max(rounds) == 1 else "adaptations"
    return str(getattr(agent, "unit", default))


class Evaluation(NamedTuple):
    """The returns of one agent in N tasks after 0, 1, 2, ... adaptations."""

    family: str
    split: Split | Literal["given"]
    tasks: Tasks
    returns: tuple[Tensor, ...]  # one a round, [N, E_k], undiscounted
    bounds: Bounds
    shuffled: Tensor | None = None  # [N, E], the last round anew with another task's memory; None: not played
    wiped: Tensor | None = None  # [N, E], the last round anew with the memory wiped; None: not played
    unit: str = "adaptations"  # what is counted between the rounds
    variants: Mapping[str, Tensor] = MappingProxyType(
        {}
    )  # [N, E], the last round as the agent may also play it

    @property
    def scores(self) -> np.ndarray:
        """Each task's mean return in each round, [R, N]; where the agent diverged, the task's floor."""
        return np.stack([self._scored(r) for r in self.returns])

    @property
    def controls(self) -> dict[str, np.ndarray]:
        """The same of each control and variant that was played, [N], by its name."""
        played = {name: getattr(self, name) for name in CONTROLS} | dict(self.variants)
        return {name: self._scored(r) for name, r in played.items() if r is not None}

    def _scored(self, returns: Tensor) -> np.ndarray:
        mean = returns.double().mean(1)
        found: np.ndarray = torch.where(mean.isfinite(), mean, self.bounds.floor.double()).cpu().numpy()
        return found

    @property
    def diverged(self) -> int:
        """How many tasks' returns are not finite numbers in some round."""
        return int(torch.stack([~r.isfinite().all(1) for r in self.returns]).any(0).sum())

    def summary(self) -> dict[str, Any]:
        """Every round's statistics, with floor, oracle, gain and regret, as plain numbers.

        `controls` has those of the last round under each control, `total` those of the sum over all rounds,
        and `totals` those of the sums over the first 10, 25, ... of them.
        """
        floor, oracle = (bound.double().mean().item() for bound in self.bounds)
        scores = self.scores[:, None]
        rounds = statistics.summaries(scores, shown(len(scores)))
        first, last = rounds[0]["mean"], rounds[-1]["mean"]
        return {
            "family": self.family,
            "split": self.split,
            "tasks": len(self.tasks.ids),
            "diverged": self.diverged,
            "unit": self.unit,
            "rounds": rounds,
            "floor": floor,
            "oracle": oracle,
            "gain": last - first,
            "regret": oracle - last,
            "controls": {name: statistics.summary(s[None]) for name, s in self.controls.items()},
            "total": statistics.summary(scores.sum(0)),
            "totals": totals(scores),
        }

    def __str__(self) -> str:
        """A line a round: what a person wants to see of an adaptation curve."""
        lines = [f"{self.family}, {self.split} split, {len(self.tasks.ids)} tasks"]
        found = self.summary()
        rounds, told = found["rounds"], shown(len(self.returns))
        lines += [f"  after {k} {found['unit']}: {_with_interval(rounds[k])}" for k in told]
        played = found["controls"].items()
        lines += [f"  last round, {CONTROLS.get(name, name)}: {_with_interval(r)}" for name, r in played]
        if len(rounds) > SHORT:
            lines.append(f"  all {len(self.returns)} rounds together: {_with_interval(found['total'])}")
        floor, oracle = (statistics.rounded(found[bound]) for bound in ("floor", "oracle"))
        lines.append(f"  floor {floor}, oracle {oracle}")
        return "\n".join(lines)


def _with_interval(r: dict[str, Any]) -> str:
    mean, low, high = map(statistics.rounded, (r["mean"], *r["ci95"]))
    return f"{mean:>9}  [{low}, {high}]"


def totals(scores: np.ndarray) -> list[dict[str, Any]]:
    """Statistics of the sums over the first 10, 25, ... rounds, and over all, scores [R, S, N]."""
    lengths = [*(n for n in LENGTHS if n < len(scores)), len(scores)]
    sums = scores.cumsum(0)[[n - 1 for n in lengths]]
    return [{"rounds": n, **r} for n, r in zip(lengths, statistics.summaries(sums, ()), strict=True)]


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
    controls: bool = True,
) -> Evaluation:
    """Let the agent adapt in every task of a split's pool, or in given tasks, `rounds[k]` episodes at a time.

    Nothing is learned across tasks here. `controls` plays the last round twice more, as this module says;
    `rng` and the agent's own generators are left as the trial left them. Raises ConfigError for an unknown
    split.
    """
    if getattr(agent, "untrained", False):
        warnings.warn(f"{type(agent).__name__} was never trained: its scores are at chance", stacklevel=3)
    named: Split | Literal["given"] = "given"
    if tasks is None:
        named, tasks = split, family.sample_tasks(None, split, rng)
    witness: Any = Witness(agent, rng)
    trial = run_trial(family, witness, tasks, rounds, rng, greedy_last)
    returns = tuple(rollout.returns for rollout in trial.rounds)
    bounds, counted = family.bounds(tasks), unit(agent, rounds)
    found = Evaluation(family.name, named, tasks, returns, bounds, unit=counted)
    if not controls or len(rounds) == 1:  # a first round has no memory that could be changed
        return found
    after = witness.drawn()
    played = _controls(family, witness, trial, not greedy_last)
    witness.rewind(after)
    wiped, shuffled = played.pop("wiped"), played.pop("shuffled", None)
    return found._replace(shuffled=shuffled, wiped=wiped, variants=played)


# --- controls


class Witness:
    """An agent that plays as ever, by delegation, and keeps how its last round began."""

    def __init__(self, agent: Agent[Any], rng: Generator) -> None:
        self.agent, self.rng = agent, rng
        own = [x for x in vars(agent).values() if isinstance(x, Generator) and x is not rng]
        self.generators = [rng, *own]
        self.belief, self.states = None, self.drawn()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.agent, name)

    def adapt(self, belief: Any, rollout: Rollout) -> Any:
        """The agent's; a round ends, and another begins."""
        self.belief, self.states = self.agent.adapt(belief, rollout), self.drawn()
        return self.belief

    def drawn(self) -> list[Tensor]:
        """How far the generators have come."""
        return [g.get_state() for g in self.generators]

    def rewind(self, states: Sequence[Tensor]) -> None:
        """Take the generators back."""
        for g, state in zip(self.generators, states, strict=True):
            g.set_state(state)


def _controls(family: Family, witness: Witness, trial: Trial, explore: bool) -> dict[str, Tensor]:
    """The returns [N, E] of the last round with another task's memory, where there is one, and with none.

    And those of the beliefs that an agent with `variants` would have it played with besides.
    """
    tasks, episodes = trial.rounds[-1].returns.shape
    others: Any = getattr(witness.agent, "variants", lambda belief: {})
    rounds = trial.rounds[:-1]
    past = {name: (belief, rounds, 0) for name, belief in others(witness.belief).items()}
    past["wiped"] = witness.agent.begin(tasks, episodes), (), 0
    if tasks > 1:
        past["shuffled"] = rolled(witness.belief, tasks), rounds, tasks // 2
    found = {}
    for name, (belief, played, by) in past.items():
        witness.rewind(witness.states)  # so that the memory alone makes the difference
        first = next_round(family, trial.tasks, episodes, witness.rng, rounds)
        obs, *before = opening(family, first, played)
        step = Step(obs, *(x.roll(by, 0) for x in before))
        found[name] = collect(family, witness.agent, belief, step, explore)[0].returns
    return found


def rolled(belief: Any, tasks: int) -> Any:
    """A belief in which each task holds what another one knew, half the pool away: pools may be sorted.

    Moved are all tensors of N rows in nested tuples, lists and dicts; what else there is belongs to no task.
    """
    if isinstance(belief, Tensor):
        return belief.roll(tasks // 2, 0) if belief.shape[:1] == (tasks,) else belief
    if isinstance(belief, dict):
        return {key: rolled(value, tasks) for key, value in belief.items()}
    if isinstance(belief, tuple | list):
        parts = [rolled(part, tasks) for part in belief]
        return type(belief)(*parts) if hasattr(belief, "_fields") else type(belief)(parts)
    return belief
