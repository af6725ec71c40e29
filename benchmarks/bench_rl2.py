"""Environment steps/s of RL²'s whole training iteration, collection and update, and the share of each.

    python benchmarks/bench_rl2.py [iterations]

Half-Cheetah goal velocity (two episodes of 200 steps, GRU of 128, two epochs of two minibatches), the same
with an LSTM of 64 and sixteen minibatches, a bandit of ten arms (100 pulls), and one of fifty with a memory
for each arm (an LSTM of 16, sixteen minibatches). The reference is the update as public code has it
(VariBAD's repository): before each minibatch a cell is stepped through all trials, in Python. It runs in
between, in the same process, on the same trials. The last line is JSON.
"""

import json
import statistics
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

import metarl
from metarl import Family, Sequence, Trial, run_trial, unroll
from metarl.agents import Rl2
from metarl.envs import make

CHEETAH: dict[str, Any] = {"gamma": 0.97, "gae_lambda": 0.9}
LSTM: dict[str, Any] = {"memory": "lstm", "hidden": 64, "minibatches": 16}
ARMS: dict[str, Any] = LSTM | {"hidden": 16, "layers": (32,), "per_action": True, "action_by_reward": True}
WORLDS: dict[str, tuple[str, tuple[int, ...], int, dict[str, Any]]] = {
    "half_cheetah_vel": ("half-cheetah-vel/varibad2020", (1, 1), 64, CHEETAH),
    "half_cheetah_vel_lstm": ("half-cheetah-vel/varibad2020", (1, 1), 64, CHEETAH | LSTM),
    "bandit": ("bandit/bernoulli-k10", (1,) * 100, 256, {"gamma": 1.0, "gae_lambda": 0.3}),
    "bandit_per_action": ("bandit/bernoulli-k50", (1,) * 100, 256, {"gamma": 1.0} | ARMS),
}


class Reference:
    """The same objective, with the memory stepped in Python, and torch's own threads."""

    def __init__(self, agent: Rl2) -> None:
        self.agent = agent
        self.adam = torch.optim.Adam(agent.parameters(), agent.config.learning_rate)

    def features(self, x: Tensor) -> Tensor:
        """The memory's features [L, B, H], a step at a time."""
        state, moves = self.agent.memory.begin(x.shape[1]), torch.ones(x.shape[1], dtype=torch.bool)
        found = []
        for now in x:
            h, state = self.agent.memory.step(now, state, moves)
            found.append(h)
        return torch.stack(found)

    def update(self, steps: Sequence) -> None:
        """Two epochs of minibatches."""
        agent, c = self.agent, self.agent.config
        targets = agent.learner.targets(steps)
        for _ in range(c.epochs):
            order = torch.randperm(steps.reward.shape[1], generator=agent.rng)
            for part in order.tensor_split(c.minibatches):
                few = steps.learners(part)
                x = agent.sequence_inputs(steps)
                policy, value = agent.judgement(self.features(x)[:, part], x[:, part])
                ratio = (policy.log_prob(few.action) - few.log_prob).exp()
                advantage, wanted = (each[:, part] for each in targets)
                clipped = ratio.clamp(1 - c.clip_range, 1 + c.clip_range) * advantage
                loss = (
                    -torch.minimum(ratio * advantage, clipped)
                    + 0.5 * c.value_coefficient * (value - wanted).square()
                )
                self.adam.zero_grad()
                (loss - c.entropy_coefficient * policy.entropy()).mean().backward()
                nn.utils.clip_grad_norm_(agent.parameters(), c.max_grad_norm)
                self.adam.step()


def seconds(function: object, *args: object) -> tuple[float, object]:
    """How long a call took, and what it gave."""
    begin = time.perf_counter()
    result = function(*args)  # type: ignore[operator]
    return time.perf_counter() - begin, result


def measure(name: str, iterations: int) -> dict[str, float]:
    """Median steps/s of the iteration, its parts, and how many times faster the update is."""
    kind, rounds, tasks, settings = WORLDS[name]
    family: Family = make(kind)
    rng = metarl.generator(0)
    spaces = family.observation_space, family.action_space
    agent = Rl2(*spaces, rng, Rl2.Config(**{"hidden": 128, "epochs": 2, "minibatches": 2} | settings))
    reference = Reference(Rl2(*spaces, metarl.generator(0), agent.config))
    steps = tasks * len(rounds) * family.horizon
    parts: dict[str, list[float]] = {"collect": [], "update": [], "reference": []}
    for k in range(iterations + 1):
        with metarl.device.one_thread():
            drawn = family.sample_tasks(tasks, "train", rng)
            collect, trial = seconds(run_trial, family, agent, drawn, rounds, rng)
            update, _ = seconds(agent.meta_update, trial)
        assert isinstance(trial, Trial)
        plain, _ = seconds(reference.update, unroll(trial))
        if k:  # the first warms up
            for part, value in zip(parts, (collect, update, plain), strict=True):
                parts[part].append(value)
    median = {part: statistics.median(values) for part, values in parts.items()}
    whole = median["collect"] + median["update"]
    return {
        "steps_per_second": round(steps / whole),
        "collect_share": round(median["collect"] / whole, 2),
        "update_share": round(median["update"] / whole, 2),
        "collect_seconds": round(median["collect"], 3),
        "update_seconds": round(median["update"], 3),
        "reference_update_seconds": round(median["reference"], 3),
        "update_ratio": round(median["reference"] / median["update"], 2),
        "ratio": round((median["collect"] + median["reference"]) / whole, 2),
    }


def main(iterations: int) -> None:
    """Measure all worlds."""
    print(json.dumps({"benchmark": "rl2"} | {name: measure(name, iterations) for name in WORLDS}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
