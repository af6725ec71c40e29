"""Meta-iterations/s of MAML and Prototypical networks on letters, beside a plain loop over tasks.

    python benchmarks/bench_few_shot.py [iterations]

MAML: 32 tasks of 5 classes, a picture of each to learn from and one to be asked for, four convolutions of 64
channels, 1 and 5 inner steps, exactly second order. The reference adapts a task after the other, by
torch.autograd with torch's own batch normalisation, as public code does, at its better number of threads;
its gradients are checked against ours before anything is timed. Prototypical networks: an episode of 20
classes with 5 queries each; the reference embeds support and queries a class at a time. Ours is the whole
iteration, dealing and all; the reference's episodes are dealt before the clock runs. The last line is JSON.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import metarl
from metarl import Trial, run_trial
from metarl.agents import Maml, Prototypical
from metarl.envs import make

TASKS = 32


def logits(params: Sequence[Tensor], x: Tensor) -> Tensor:
    """Four strided convolutions and a linear layer, by torch's own functions."""
    for i in range(4):
        weight, scale, shift = params[3 * i : 3 * i + 3]
        x = F.conv2d(x, weight, padding=1, stride=2)
        x = F.relu(F.batch_norm(x, None, None, scale, shift, training=True))
    return F.linear(x.mean((2, 3)), *params[-2:])


def plain_maml(agent: Maml, trial: Trial) -> list[Tensor]:
    """The meta-gradient, a task at a time."""
    theta, c = agent.network.params, agent.config
    (sx, sy), (qx, qy) = agent.examples(trial)
    total = torch.zeros(())
    for n in range(len(sx)):
        phi = theta
        for _ in range(c.inner_steps):
            loss = F.cross_entropy(logits(phi, sx[n]), sy[n])
            gradient = torch.autograd.grad(loss, phi, create_graph=True)
            phi = [p - c.inner_lr * g for p, g in zip(phi, gradient, strict=True)]
        total = total + F.cross_entropy(logits(phi, qx[n]), qy[n])
    return [*torch.autograd.grad(total / len(sx), theta)]


def plain_prototypical(agent: Prototypical, trial: Trial) -> list[Tensor]:
    """The gradient of one episode, its classes embedded one after the other."""
    (sx, sy), (qx, qy) = agent.examples(trial)
    classes = range(agent.classes)
    prototypes = torch.stack([agent.embedding(sx[0, sy[0] == c], True).mean(0) for c in classes])
    losses = []
    for c in classes:
        embedded = agent.embedding(qx[0, qy[0] == c], True)
        distance = (embedded.unsqueeze(1) - prototypes).square().sum(-1)
        losses.append(F.cross_entropy(-distance, torch.full((len(embedded),), c)))
    return [*torch.autograd.grad(torch.stack(losses).mean(), list(agent.parameters()))]


def seconds(function: Callable[..., Any], *args: Any) -> float:
    """How long a call took."""
    begin = time.perf_counter()
    function(*args)
    return time.perf_counter() - begin


def measure(
    agent: Any,
    family: Any,
    rounds: Sequence[int],
    tasks: int,
    plain: Callable[[Any, Trial], list[Tensor]],
    iterations: int,
) -> dict[str, float]:
    """Median seconds of our iteration and of the reference's update, in turns, and the ratio."""
    rng = metarl.generator(1)
    cores = metarl.device.workers()

    def dealt() -> Trial:
        return run_trial(family, agent, family.sample_tasks(tasks, "train", rng), rounds, rng)

    def ours() -> None:
        with metarl.device.one_thread():
            agent.meta_update(dealt())

    def theirs(trial: Trial, threads: int) -> None:
        torch.set_num_threads(threads)
        agent.adam.step(plain(agent, trial), 1e-9)

    agent.train()
    found: dict[str, list[float]] = {"ours": [], **{f"plain, {n} threads": [] for n in {1, cores}}}
    for k in range(iterations + 1):
        trial = dealt()
        times = {"ours": seconds(ours)}
        times |= {f"plain, {n} threads": seconds(theirs, trial, n) for n in {1, cores}}
        if k:  # the first warms up
            for name, value in times.items():
                found[name].append(value)
    median = {name: statistics.median(values) for name, values in found.items()}
    best = min(value for name, value in median.items() if name != "ours")
    told = {f"{name.replace(', ', '_').replace(' ', '_')}_seconds": round(v, 4) for name, v in median.items()}
    return {
        **told,
        "iterations_per_second": round(1 / median["ours"], 2),
        "ratio": round(best / median["ours"], 2),
    }


def maml(inner_steps: int, iterations: int) -> dict[str, float]:
    """MAML's figures; the gradients are compared first."""
    family, rng = make("glyphs/5-way"), metarl.generator(0)
    config = Maml.Config(filters=64, inner_steps=inner_steps, inner_lr=0.1)
    agent = Maml(family.observation_space, family.action_space, rng, config)
    trial = run_trial(family, agent, family.sample_tasks(8, "train", rng), (5, 5), rng)
    *supports, query = agent.examples(trial)
    ours, _ = agent.meta_gradient(supports, query, slice(None))
    for g, p in zip(ours, plain_maml(agent, trial), strict=True):
        torch.testing.assert_close(g / 8, p, rtol=1e-3, atol=1e-5)
    return measure(agent, family, (5, 5), TASKS, plain_maml, iterations)


def prototypical(iterations: int) -> dict[str, float]:
    """The figures of Prototypical networks."""
    family, rng = make("glyphs/20-way"), metarl.generator(0)
    agent = Prototypical(family.observation_space, family.action_space, rng, Prototypical.Config(filters=64))
    return measure(agent, family, (20, 100), 1, plain_prototypical, iterations)


def main(iterations: int) -> None:
    """All of it."""
    found = {"maml_1_step": maml(1, iterations), "maml_5_steps": maml(5, iterations)}
    print(json.dumps({"benchmark": "few_shot", **found, "prototypical": prototypical(iterations)}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
