"""Half-cheetah steps a second, with rewards, resets and a policy for each task, as agents play them.

Two references, in paired and interleaved blocks: MuJoCo's own steps alone, from the same states with the
same controls (all in C, on all cores, one simulation after the other so that caches stay hot: the limit),
and Gymnasium's SyncVectorEnv as it comes, without a policy: of as many environments, and of a few, with
which it is faster. Prints a line of JSON: steps a second of us, of our physics alone, and of the
three, with the medians of the blocks' ratios.
"""

import json
import multiprocessing
import os
import sys
import tempfile
from functools import cache
from multiprocessing.pool import Pool
from statistics import median
from time import perf_counter

import gymnasium as gym
import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from metarl import GaussianMlp, device, generator
from metarl.envs import Physics, gymnasium_model, make

NAME = "half-cheetah-vel/pearl2019"
SUBSTEPS = 5  # of both families, Gymnasium's and ours
SIZES = ((40, 4), (40, 20), (40, 40))  # tasks x episodes
FEW = 16  # environments, of which SyncVectorEnv makes more steps a second than of hundreds
STEPS = 200  # in a block, for each


class Ours:
    """The family behind Gaussian policies, 64-64 relu, one a task; whole episodes, and what they did."""

    def __init__(self, tasks: int, episodes: int) -> None:
        self.family, self.rng, self.episodes = make(NAME), generator(0), episodes
        self.tasks = self.family.sample_tasks(tasks, "train", self.rng)
        self.policy = GaussianMlp(20, 6, self.rng, activation="relu")
        self.params = self.policy.flat.detach().repeat(tasks, 1)  # [N, P]

    def play(self) -> tuple[float, Tensor, Tensor, Tensor]:
        """Seconds of a round, the states before and after it, [n, nq + nv], and the actions, [T, n, A]."""
        begin, actions = perf_counter(), []
        obs = self.family.reset(self.tasks, self.episodes, self.rng)
        before = self.state()
        for _ in range(STEPS):
            policy = self.policy.batched(self.params, obs)
            actions.append(policy.sample(self.rng))
            obs = self.family.step(actions[-1]).obs
        seconds = perf_counter() - begin
        return seconds, before, self.state(), torch.stack(actions).flatten(1, 2).double().clamp(-1, 1)

    def replay(self, before: Tensor, controls: Tensor) -> float:
        """Seconds of the physics alone."""
        begin = perf_counter()
        self.physics.reset(before[:, :9], before[:, 9:])
        for control in controls:
            self.physics.step(control, SUBSTEPS)
        return perf_counter() - begin

    @property
    def physics(self) -> Physics:
        return self.family._physics  # type: ignore[attr-defined]

    def state(self) -> Tensor:
        return torch.cat([self.physics.qpos, self.physics.qvel], -1)


class Limit:
    """The same simulations in C alone."""

    def __init__(self, n: int) -> None:
        model = gymnasium_model("half_cheetah.xml")
        self.batch = Batch(model, n, nthread=device.workers())
        self.state = self.batch.state[:, 1 : 1 + model.nq + model.nv]  # after the time

    def play(self, before: Tensor, controls: Tensor) -> float:
        """Seconds of the same steps."""
        script = controls.transpose(0, 1).repeat_interleave(SUBSTEPS, 1).numpy()  # [n, T substeps, A]
        self.batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        self.state[:] = before
        begin = perf_counter()
        self.batch.rollout(script.shape[1], script, record=())
        return perf_counter() - begin


@cache
def vector_env(n: int) -> gym.vector.VectorEnv:
    os.chdir(tempfile.gettempdir())  # where MuJoCo logs that Gymnasium's model is old
    envs = gym.make_vec("HalfCheetah-v5", num_envs=n, vectorization_mode="sync")
    envs.reset(seed=0)
    return envs


def gymnasium(n: int) -> float:
    """Seconds of a step of one environment among n, with actions that were drawn beforehand."""
    envs = vector_env(n)
    actions, steps = envs.action_space.sample(), max(20, STEPS * FEW // n)
    begin = perf_counter()
    for _ in range(steps):
        envs.step(actions)
    return (perf_counter() - begin) / (steps * n)


def measure(tasks: int, episodes: int, blocks: int, pool: Pool) -> dict[str, float]:
    """Steps a second, and the medians of the ratios within blocks."""
    ours, n, speeds = Ours(tasks, episodes), tasks * episodes, []
    limit = Limit(n)
    for _ in range(blocks + 1):
        seconds, before, after, controls = ours.play()
        in_c = limit.play(before, controls)
        assert np.array_equal(limit.state, after), "not the same simulations"
        each = [seconds / n, ours.replay(before, controls) / n, in_c / n]
        sync = [STEPS * pool.apply(gymnasium, (envs,)) for envs in (n, FEW)]
        speeds.append([STEPS / x for x in each + sync])
    rows = speeds[1:]  # the first one warms up
    names = ("ours", "physics", "limit", "sync", "few_sync")
    found = {name: round(median(row[i] for row in rows)) for i, name in enumerate(names)}
    return found | {
        "of_limit": round(median(row[0] / row[2] for row in rows), 3),
        "physics_of_limit": round(median(row[1] / row[2] for row in rows), 3),
        "of_sync": round(median(row[0] / row[3] for row in rows), 2),
        "of_few_sync": round(median(row[0] / row[4] for row in rows), 2),
    }


def main(blocks: int) -> None:
    """Measure all sizes, with Gymnasium in a process of its own: ours clears MuJoCo's profiling clock."""
    spawn = multiprocessing.get_context("spawn")
    # torch's threads would wait actively on the physics' cores
    with spawn.Pool(1) as pool, torch.no_grad(), device.one_thread():
        found = {f"{n}x{e}": measure(n, e, blocks, pool) for n, e in SIZES}
    print(json.dumps({"benchmark": "physics", "family": NAME, **found}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
