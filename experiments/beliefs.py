"""The report's section on beliefs: what an agent that holds a posterior thinks of tasks, when and where."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl import run_trial, unroll

from .figures import INK, PALE, PUBLISHED, number, svg
from .material import Material
from .motion import evenly
from .page import plural, section
from .session import reseeded

WIDTH = 960  # of the page's column, in pixels
DIMENSIONS = 5  # of the embedding, that are drawn
SHOWN, MANY = 5, 100  # tasks whose beliefs are followed, and those that are placed in the embedding
COLOURS = "viridis"  # of a task's numbers
QUANTILES = (0.1, 0.5, 0.9)  # of the width over tasks


class Beliefs(NamedTuple):
    """What was believed of N tasks at each of L steps; the steps that were not played are at the end."""

    mean: np.ndarray  # [L, N, Z]
    std: np.ndarray  # [L, N, Z]
    played: np.ndarray  # [L, N], bool
    params: np.ndarray  # [N, P]

    def of(self, places: np.ndarray) -> "Beliefs":
        """Those of some tasks."""
        mean, std, played, params = self
        return Beliefs(mean[:, places], std[:, places], played[:, places], params[places])


def beliefs(m: Material) -> str:
    """The posterior over time, and where it places tasks; nothing where the agent has none."""
    if not hasattr(m.session.agent, "posterior"):
        return ""
    found, family = held(m), m.session.family
    count = len(found.params)
    few = found.of(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int))
    rounds = len(m.session.experiment.evaluation.rounds)
    starts = family.horizon * np.arange(1, rounds) if found.played.all() else np.empty(0)
    names = [task_named(family, values) for values in few.params.tolist()]
    return section(
        "beliefs",
        "What it believes",
        f"The posterior over the task's embedding while the agent plays {plural(len(names), 'test task')}, "
        "an episode a round: its mean (line) and standard deviation (band) in each dimension, and its mean "
        "width. At first it is the same for all; where the agent has learned to tell tasks apart, the lines "
        "part as it sees more, and the width falls. Dotted lines are the starts of episodes.",
        svg("beliefs", WIDTH, 430, lambda figure: followed(figure, few, names, starts)),
        "<p>Where the posterior's means of many test tasks end, in the two directions in which they differ "
        "most, coloured by the task's true numbers; and how its width falls with the transitions seen "
        "(median, and the middle 80 % of tasks).</p>",
        svg("embedding", WIDTH, 330, lambda figure: embedded(figure, found, family)),
    )


def held(m: Material) -> Beliefs:
    """The beliefs in up to MANY test tasks, by their first number, each played by one learner."""
    agent: Any = m.session.agent
    protocol, family = m.session.experiment.evaluation, m.session.family
    with reseeded(m.session.rng, protocol.seed) as rng:
        tasks = evenly(family.sample_tasks(None, "test", rng), MANY)
        trial = run_trial(family, agent, tasks, (1,) * len(protocol.rounds), rng, protocol.greedy_last)
    mean, std = (x.cpu().numpy() for x in agent.posterior(trial))
    return Beliefs(mean, std, unroll(trial).valid.cpu().numpy(), tasks.params.cpu().numpy())


def followed(figure: Figure, b: Beliefs, names: Sequence[str], starts: np.ndarray) -> None:
    """A panel a dimension, over time, and one of the mean width."""
    drawn = min(DIMENSIONS, b.mean.shape[-1])
    panels = figure.subplots(2, -(-(drawn + 1) // 2), sharex=True, squeeze=False).flatten()
    for n, name in enumerate(names):
        steps, colour = np.flatnonzero(b.played[:, n]), (INK, *PUBLISHED)[n]
        for z, axes in enumerate(panels[:drawn]):
            over_time(axes, steps, b.mean[steps, n, z], b.std[steps, n, z], colour)
        panels[drawn].plot(steps, b.std[steps, n].mean(-1), color=colour, lw=1, label=name)
    for z, axes in enumerate(panels[:drawn]):
        axes.set_title(f"dimension {z + 1}")
    panels[drawn].set_title("mean width")
    panels[drawn].set_ylim(0)
    panels[drawn].legend(frameon=False, fontsize=9)
    for axes in panels[: drawn + 1]:
        for start in starts:
            axes.axvline(start, color=PALE, lw=0.8, ls=":")
    for axes in panels[drawn + 1 :]:
        axes.remove()
    figure.supxlabel("steps of the trial", fontsize=11)


def embedded(figure: Figure, b: Beliefs, family: Any) -> None:
    """All tasks in two dimensions, once for each of their first two numbers; the width against the steps."""
    last = b.played.sum(0) - 1
    ends = b.mean[last, np.arange(len(last))]
    known = np.isfinite(ends).all(1)  # an agent that diverged believes nothing
    place, params = principal(ends[known]), b.params[known]
    shown = min(2, params.shape[1])
    *panels, width = figure.subplots(1, shown + 1)
    for k, axes in enumerate(panels):
        points = axes.scatter(*place.T, c=params[:, k], cmap=COLOURS, s=22)
        axes.set_xticks([])
        axes.set_yticks([])
        parameter = family.task_space[k]
        unit = f" ({parameter.unit})" if parameter.unit else ""
        figure.colorbar(points, ax=axes, label=f"{parameter.name}{unit}")
        axes.set_title("the embedding")
    mean = b.std.mean(-1)
    mean = np.where(b.played & np.isfinite(mean), mean, np.nan)
    seen = np.isfinite(mean).any(1)
    low, middle, high = np.nanquantile(mean[seen], QUANTILES, axis=1)
    steps = np.flatnonzero(seen)
    width.plot(steps, middle, color=INK, lw=1)
    width.fill_between(steps, low, high, color=INK, alpha=0.15, lw=0)
    width.set_ylim(0)
    width.set_title("mean width")
    width.set_xlabel("transitions seen")


def principal(x: np.ndarray) -> np.ndarray:
    """Rows [N, Z] in the two directions in which they vary most, [N, 2]."""
    found: np.ndarray = np.zeros((len(x), 2))
    if len(x):
        centred = x - x.mean(0)
        directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
        found[:, : len(directions)] = centred @ directions.T
    return found


def over_time(axes: Axes, steps: Any, mean: Any, std: Any, colour: str) -> None:
    """A mean with its band."""
    axes.plot(steps, mean, color=colour, lw=1)
    axes.fill_between(steps, mean - std, mean + std, color=colour, alpha=0.15, lw=0)


def task_named(family: Any, values: list[float]) -> str:
    """A task in a few words."""
    space = family.task_space
    if len(space) > 2:
        return f"{space[0].name} {number(values[0])}, ..."
    return ", ".join(f"{p.name} {number(value)}" for p, value in zip(space, values, strict=True))
