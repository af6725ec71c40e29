"""Where tasks come from: fixed pools, a continuous box, or a user who names one."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Generator, Tensor

from metarl import SPLITS, ConfigError, Family, Split, TaskError, TaskParameter, Tasks, unknown

CONTINUOUS = -1  # the id of a task that belongs to no pool


def check_request(n: int | None, split: str) -> None:
    """Refuse a split or a number of tasks that cannot be."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if n is not None and n < 1:
        raise ConfigError(f"number of tasks is {n}; allowed: 1 or more")


def from_pool(pool: Tensor, n: int | None, split: Split, rng: Generator) -> Tasks:
    """n different tasks of a pool [M, P] in random order, or all of them in the pool's."""
    check_request(n, split)
    size = len(pool)
    if n is None:
        ids = torch.arange(size, device=pool.device)
    elif n <= size:
        ids = torch.randperm(size, generator=rng, device=pool.device)[:n]
    else:
        raise ConfigError(f"number of tasks is {n}; allowed: 1 to {size}, the whole {split} pool")
    return Tasks(pool[ids], ids)


def from_box(n: int | None, low: Tensor, high: Tensor, split: Split, rng: Generator) -> Tasks:
    """n tasks, uniform between low [P] and high [P]."""
    check_request(n, split)
    if n is None:
        raise ConfigError(f"the {split} split is continuous and has no whole: give a number of tasks")
    u = torch.rand(n, len(low), generator=rng, device=low.device)
    return Tasks(low + (high - low) * u, torch.full((n,), CONTINUOUS, device=low.device))


def from_splits(
    pools: Mapping[str, Tensor], space: Sequence[TaskParameter], n: int | None, split: Split, rng: Generator
) -> Tasks:
    """From the split's pool [M, P] or, where training has none, uniform over the trained range."""
    check_request(n, split)
    if split in pools:
        return from_pool(pools[split], n, split, rng)
    dtype, device = torch.get_default_dtype(), pools["test"].device
    low, high = torch.tensor([(p.train_low, p.train_high) for p in space], dtype=dtype, device=device).T
    return from_box(n, low, high, split, rng)


def beyond(inner: float, outer: float, n: int, seed: int) -> np.ndarray:
    """n points of the square of half-width `outer`, none within half-width `inner`, [n, 2]."""
    draws = np.random.RandomState(seed).uniform(-outer, outer, (100 * n, 2))
    return draws[np.abs(draws).max(1) > inner][:n]


def named_tasks(family: Family, values: Sequence[Mapping[str, float]]) -> Tasks:
    """Tasks given by name, as {"goal_x": 0.3, "goal_y": -0.2}; TaskError where one is not acceptable."""
    return tasks_of(family, [_row(family, task) for task in values])


def _row(family: Family, task: Mapping[str, float]) -> list[float]:
    """The numbers of one task in the task space's order, checked."""
    names, row = [p.name for p in family.task_space], []
    for name in task:
        if name not in names:
            raise TaskError(str(unknown("task parameter", name, names)))
    for p in family.task_space:
        value = task.get(p.name, p.default)
        if value is None:
            raise TaskError(f"task parameter {p.name!r} is missing; wanted: {', '.join(names)}")
        number = isinstance(value, int | float | np.number) and math.isfinite(value)
        if not (number and p.low <= value <= p.high and (not p.values or value in p.values)):
            allowed = " or ".join(f"{v:g}" for v in p.values) or f"{p.low:g} to {p.high:g}"
            unit = p.unit and f" {p.unit}"
            raise TaskError(f"{p.name} is {value}{unit}; allowed: {allowed}{unit}")
        row.append(value)
    return row


def tasks_of(family: Family, params: ArrayLike) -> Tasks:
    """Tasks of these numbers, [N, P], on the family's device; they are not checked."""
    rows = torch.as_tensor(np.asarray(params), dtype=torch.get_default_dtype(), device=family.device)
    return Tasks(rows, torch.full((len(rows),), CONTINUOUS, device=family.device))
