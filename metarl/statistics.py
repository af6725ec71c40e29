"""Scores with their uncertainty: interquartile mean, stratified bootstrap intervals, and the worst tasks."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

Array = np.ndarray
Statistic = Callable[[Array], Array]  # scores [..., S, N] to [...]


def rounded(value: float) -> str:
    """A number as a person reads it: two digits after the point, and three of shares."""
    return f"{value:.{3 if abs(value) < 1 else 2}f}"


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


T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)  # Student's, 1 to 10 degrees


def seed_interval(scores: Array) -> tuple[float, float]:
    """The 95 % Student t interval of the mean over runs, from the means of S >= 2 runs, scores [S, N].

    A trained run plays every task, so its luck is shared by all of them: unlike the bootstrap within
    tasks, which takes a run's scores as independent, this says how far another training may fall.
    """
    means = scores.mean(1)
    degrees = len(means) - 1
    # beyond the table: the first terms of Student's own expansion around the normal quantile
    t = T_975[degrees - 1] if degrees <= len(T_975) else 1.96 + 2.372 / degrees + 2.822 / degrees**2
    half = t * means.std(ddof=1) / np.sqrt(len(means))
    return float(means.mean() - half), float(means.mean() + half)


def summary(scores: Array) -> dict[str, Any]:
    """All of the above for scores [S, N], as plain numbers; the resampling has its own fixed seed.

    `ci95` is the mean's interval: over runs where there are several, else over tasks.
    """
    bootstrap = interval(scores, np.random.default_rng(0))
    return {
        "mean": float(mean(scores)),
        "iqm": float(iqm(scores)),
        "ci95": list(seed_interval(scores) if len(scores) > 1 else bootstrap),
        "bootstrap95": list(bootstrap),
        "iqm_ci95": list(interval(scores, np.random.default_rng(0), iqm)),
        "cvar5": float(cvar(scores)),
    }


def summaries(scores: Array, full: Collection[int]) -> list[dict[str, Any]]:
    """`summary` of each of R rounds, scores [R, S, N]: whole of those in `full`, its quick part of others.

    The others have neither `bootstrap95` nor `iqm_ci95`, and their `ci95` are taken together. That is what
    makes hundreds of rounds quick: the resampling has the same seed everywhere, so that a round's resampled
    means are its scores times one matrix of weights.
    """
    others = [k for k in range(len(scores)) if k not in full]
    runs = scores.shape[1]
    rest = [seed_interval(scores[k]) for k in others] if runs > 1 else _intervals(scores[others, 0])
    quick = dict(zip(others, rest, strict=True))
    return [_quick(x, quick[k]) if k in quick else summary(x) for k, x in enumerate(scores)]


def _quick(scores: Array, ci95: tuple[float, float]) -> dict[str, Any]:
    rest = {"ci95": list(ci95), "cvar5": float(cvar(scores))}
    return {"mean": float(mean(scores)), "iqm": float(iqm(scores)), **rest}


def _intervals(scores: Array, resamples: int = 2000) -> list[tuple[float, float]]:
    """`interval` of the means of many rounds of one run at once, scores [R, N], up to rounding."""
    tasks = scores.shape[1]
    drawn = np.random.default_rng(0).integers(tasks, size=(resamples, tasks))  # as in `interval`
    places = drawn + tasks * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=resamples * tasks).reshape(resamples, tasks)
    low, high = np.quantile(counts @ scores.T / tasks, (0.025, 0.975), axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
