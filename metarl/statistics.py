"""Scores with their uncertainty: interquartile mean, stratified bootstrap intervals, and the worst tasks."""

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Statistic = Callable[[Array], Array]  # scores [..., S, N] to [...]


def mean(scores: Array) -> Array:
    """The mean over runs and tasks, [..., S, N] to [...]."""
    return scores.mean((-2, -1))


def iqm(scores: Array) -> Array:
    """The mean of the middle half of all S N scores, [..., S, N] to [...] (Agarwal et al. 2021)."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), -1)
    cut = int(0.25 * flat.shape[-1])
    return flat[..., cut : flat.shape[-1] - cut].mean(-1)


def cvar(scores: Array, share: float = 0.05) -> Array:
    """The mean over the worst `share` of the tasks (at least one), runs averaged, [..., S, N] to [...]."""
    tasks = np.sort(scores.mean(-2), -1)
    return tasks[..., : max(1, int(np.ceil(share * tasks.shape[-1])))].mean(-1)


def interval(
    scores: Array, rng: np.random.Generator, statistic: Statistic = mean, resamples: int = 2000
) -> tuple[float, float]:
    """The 95 % bootstrap interval of a statistic of scores [S, N], S runs on N tasks.

    The tasks are strata: runs are drawn anew within each (Agarwal et al. 2021). Of one run alone there
    is nothing to draw within a task; then the tasks are drawn anew, and the interval is over tasks.
    """
    runs, tasks = scores.shape
    if runs > 1:
        rows = rng.integers(runs, size=(resamples, runs, tasks))
        drawn = np.take_along_axis(scores[None], rows, 1)
    else:
        drawn = scores[:, rng.integers(tasks, size=(resamples, tasks))].swapaxes(0, 1)
    low, high = np.quantile(statistic(drawn), (0.025, 0.975))
    return float(low), float(high)


def summary(scores: Array) -> dict[str, Any]:
    """All of the above for scores [S, N], as plain numbers; the resampling has its own fixed seed."""
    return {
        "mean": float(mean(scores)),
        "iqm": float(iqm(scores)),
        "ci95": list(interval(scores, np.random.default_rng(0))),
        "iqm_ci95": list(interval(scores, np.random.default_rng(0), iqm)),
        "cvar5": float(cvar(scores)),
    }
