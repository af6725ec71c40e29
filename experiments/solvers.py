"""Reference solvers beside the agent: algorithms that need no training, in the same tasks and rounds."""

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from metarl import ConfigError, Family, Split, device, evaluate, statistics
from metarl.agents import SOLVERS
from metarl.envs import FAMILIES, make
from metarl.evaluation import totals

from .config import EvaluationConfig


def solvers_of(family: str) -> dict[str, Any]:
    """The solvers that are for a family of that name."""
    return {name: kind for name, kind in SOLVERS.items() if family.startswith(kind.plays)}


def played_by(name: str) -> list[str]:
    """The families that a solver is for."""
    return [family for family in FAMILIES if name in solvers_of(family)]


def solved(family: Family, protocol: EvaluationConfig, split: Split) -> dict[str, Any]:
    """What every solver earns in a split's pool under a protocol: its totals, and the mean of each round.

    Each draws from a generator of its own, of the evaluation's seed. One that cannot play such rounds is
    left out, with a word on standard error.
    """
    found = {}
    for name, kind in solvers_of(family.name).items():
        try:
            played = protocol.rounds, protocol.seed, protocol.greedy_last
            found[name] = _earned(kind, family.name, family.device, *played, split)
        except ConfigError as error:
            print(f"metarl: the solver {name} is left out: {error}", file=sys.stderr)
    return found


@cache  # whatever agent is beside them: a study of several seeds plays them once
def _earned(
    kind: Any,
    name: str,
    where: torch.device,
    rounds: tuple[int, ...],
    seed: int,
    greedy: bool,
    split: Split,
) -> dict[str, Any]:
    family, rng = make(name, where), device.generator(seed, where)
    known = {"episodes": len(rounds), "horizon": family.horizon}
    config = kind.Config(**known, **kind.settings_for(name))
    solver = kind(family.observation_space, family.action_space, rng, config)
    solver.check_rounds(rounds)
    played = evaluate(family, solver, rng, rounds=rounds, split=split, greedy_last=greedy, controls=False)
    scores = played.scores[:, None]
    rest = {"totals": totals(scores), "rounds": scores.mean((1, 2)).tolist()}
    return {"total": statistics.summary(scores.sum(0)), **rest}


def best(solvers: Mapping[str, Any]) -> str:
    """The solver of the highest total."""
    return max(solvers, key=lambda name: solvers[name]["total"]["mean"])


def shares(found: Mapping[str, Any]) -> list[str]:
    """The agent's total over that of the best solver, after each number of rounds of which it is told.

    Empty where such a share means nothing, as of debts.
    """
    told = []
    for i, ours in enumerate(found["totals"]):
        theirs = max(s["totals"][i]["mean"] for s in found["solvers"].values())
        told.append(f"{ours['mean'] / theirs:.3f}" if theirs > 0 and ours["mean"] >= 0 else "")
    return told
