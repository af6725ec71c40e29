"""Seconds per meta-iteration of MAML-TRPO: 20 tasks x 20 episodes x 100 steps, before and after one step.

    python benchmarks/bench_maml_trpo.py [iterations]

The reference (reference_maml.py) runs in between, in the same process and with one torch thread, as its
small tensors want. The last line is JSON: median seconds of the exact update and of the one with a
curvature fraction of 1/5, their parts, and how many times faster than the reference each is.
"""

import cProfile
import json
import pstats
import statistics
import sys
import time

import torch
from reference_maml import Reference

import metarl
from metarl import Family
from metarl.agents import MamlTrpo
from metarl.envs import make

PARTS = {"collect": "collect", "adapt": "adapt", "cg": "conjugate_gradient", "line_search": "line_search"}


def iterate(family: Family, agent: MamlTrpo) -> dict[str, float]:
    """The seconds of one meta-iteration, in all and in its parts."""
    profile = cProfile.Profile()
    begin = time.perf_counter()
    profile.runcall(metarl.train, family, agent, agent.rng, iterations=1)
    seconds = {"total": time.perf_counter() - begin}
    calls = pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    for part, name in PARTS.items():
        seconds[part] = sum(entry[3] for (_, _, function), entry in calls if function == name)
    seconds["gradient"] = seconds["total"] - sum(seconds[part] for part in PARTS)
    return seconds


def main(iterations: int) -> None:
    """Interleave the three, and print their medians."""
    torch.set_num_threads(1)
    family = make("navigation/maml2017")
    agents = {}
    for name, fraction in (("exact", 1.0), ("fraction", 0.2)):
        config = MamlTrpo.Config(inner_lr=0.5, curvature_fraction=fraction)
        spaces = family.observation_space, family.action_space
        agents[name] = MamlTrpo(*spaces, metarl.generator(0), config)
    reference = Reference()
    rng = metarl.generator(1)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in (*agents, "reference")}
    for agent in agents.values():
        iterate(family, agent)  # warm up
    for k in range(iterations):
        for name, agent in agents.items():
            times[name] += [iterate(family, agent) for _ in range(3)]
        tasks = family.sample_tasks(20, "train", rng).params.numpy()
        times["reference"].append(reference.iteration(tasks))
        print(f"round {k}: reference {times['reference'][-1]['total']:.1f} s")
    result: dict[str, object] = {"benchmark": "maml_trpo", "tasks": 20, "episodes": 20, "steps": 100}
    for name, rows in times.items():
        result[name] = {part: round(statistics.median(r[part] for r in rows), 4) for part in rows[0]}
    slow = statistics.median(r["total"] for r in times["reference"])
    for name in agents:
        result[f"{name}_speedup"] = round(slow / statistics.median(r["total"] for r in times[name]), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
