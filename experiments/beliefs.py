"""The report's section on beliefs: what an agent that holds a posterior thinks of a few tasks, over time."""

from typing import Any

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
SHOWN = 5  # tasks


def beliefs(m: Material) -> str:
    """The posterior's mean and width at every step of a trial; nothing where the agent has none."""
    agent: Any = m.session.agent
    if not hasattr(agent, "posterior"):
        return ""
    protocol, family = m.session.experiment.evaluation, m.session.family
    with reseeded(m.session.rng, protocol.seed) as rng:
        tasks = evenly(family.sample_tasks(None, "test", rng), SHOWN)
        trial = run_trial(family, agent, tasks, protocol.rounds, rng, protocol.greedy_last)
    episodes, valid = protocol.rounds[0], unroll(trial).valid
    # the first learner of each task; [L, N, Z] and, the steps that were not played at the end, [L, N]
    mean, std = (x[:, ::episodes].cpu().numpy() for x in agent.posterior(trial))
    played = valid[:, ::episodes].cpu().numpy()
    starts = family.horizon * np.arange(1, len(protocol.rounds)) if played.all() else ()
    drawn = min(DIMENSIONS, mean.shape[-1])
    names = [task_named(family, values) for values in tasks.params.tolist()]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(2, -(-(drawn + 1) // 2), sharex=True, squeeze=False).flatten()
        for n, name in enumerate(names):
            steps, colour = np.flatnonzero(played[:, n]), (INK, *PUBLISHED)[n]
            for z, axes in enumerate(panels[:drawn]):
                over_time(axes, steps, mean[steps, n, z], std[steps, n, z], colour)
            panels[drawn].plot(steps, std[steps, n].mean(-1), color=colour, lw=1, label=name)
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

    return section(
        "beliefs",
        "What it believes",
        f"The posterior over the task's embedding while the agent plays {plural(len(names), 'test task')}: "
        "its mean (line) and standard deviation (band) in each dimension, and its mean width. At first it "
        "is the same for all; where the agent has learned to tell tasks apart, the lines part as it sees "
        "more, and the width falls. Dotted lines are the starts of episodes.",
        svg("beliefs", WIDTH, 430, draw),
    )


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
