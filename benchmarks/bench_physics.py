"""Half-cheetah steps a second, with rewards and a policy for each task, against Gymnasium's SyncVectorEnv."""

import json
import os
import tempfile
from collections.abc import Callable
from statistics import median
from time import perf_counter

import gymnasium as gym
import torch

from metarl import device, generator
from metarl.envs import make

NAME = "half-cheetah-vel/pearl2019"  # 5 substeps a step, as Gymnasium has it
TASKS = 16


def steps_per_second(step: Callable[[], object], n: int) -> float:
    """Steps of n environments a second: the median of five blocks of half a second or so."""
    speeds = []
    for _ in range(5):
        start, calls = perf_counter(), 0
        while perf_counter() - start < 0.5:
            step()
            calls += 1
        speeds.append(calls * n / (perf_counter() - start))
    return median(speeds[1:])


def ours(n: int) -> float:
    """The family's step behind a linear policy for each task, restarted at the horizon."""
    family, rng = make(NAME), generator(0)
    tasks = family.sample_tasks(TASKS, "train", rng)
    weights = 0.1 * torch.randn(TASKS, 20, 6, generator=rng)
    obs, time = family.reset(tasks, n // TASKS, rng), 0

    def step() -> None:
        nonlocal obs, time
        obs, time = family.step(obs @ weights).obs, time + 1
        if time % family.horizon == 0:
            obs = family.reset(tasks, n // TASKS, rng)

    return steps_per_second(step, n)


def gymnasium(n: int = 16) -> float:
    """SyncVectorEnv's step, with actions that were drawn beforehand."""
    envs = gym.make_vec("HalfCheetah-v5", num_envs=n, vectorization_mode="sync")
    envs.reset(seed=0)
    actions = envs.action_space.sample()
    return steps_per_second(lambda: envs.step(actions), n)


if __name__ == "__main__":
    os.chdir(tempfile.gettempdir())  # where MuJoCo logs that Gymnasium's model is old
    with torch.no_grad(), device.one_thread():  # torch's threads would wait actively on the physics' cores
        found = {"gymnasium_sync_16": gymnasium(), "ours_128": ours(128), "ours_512": ours(512)}
    ratio = found["ours_512"] / found["gymnasium_sync_16"]
    print(json.dumps({k: round(v) for k, v in found.items()} | {"ratio": round(ratio, 2)}))
