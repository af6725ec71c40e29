"""The report's section on robots: how fast they run before and after adaptation, and pictures of it."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from metarl import ConfigError, Family, Tasks, run_trial
from metarl.envs import Picture
from metarl.evaluation import unit

from .figures import BLUE, GREEN, PALE, earned, legend, svg
from .page import plural, section
from .render import Recorder, before_and_after, described, filmstrip
from .session import Session, reseeded

WIDTH = 960  # of the page's column, in pixels
SHOWN, EPISODES = 6, 3  # test tasks, and the episodes of each, that are drawn
FRAMES = 8  # of a strip


def motion(session: Session) -> str:
    """Speed over time in a few tasks, and two strips of pictures; nothing where the family is no robot."""
    if getattr(session.family, "view", "") != "velocity":
        return ""
    protocol = session.experiment.evaluation
    recorder: Any = Recorder(session.family, lambda family, _: family.speed().cpu())
    with reseeded(session.rng, protocol.seed) as rng:
        tasks = evenly(session.family.sample_tasks(None, "test", rng))
        trial = run_trial(recorder, session.agent, tasks, protocol.rounds, rng, protocol.greedy_last)
    ends, last = (trial.rounds[0], trial.rounds[-1]), len(trial.rounds) - 1
    titles = [" → ".join(earned(rollout, n) for rollout in ends) for n in range(len(tasks.ids))]
    columns, counted = min(3, len(titles)), unit(session.agent, protocol.rounds)
    before, after = legend(0, counted), legend(last, counted)

    def draw(figure: Figure) -> None:
        speeds_over_time(figure, recorder, last, tasks, titles, columns)

    told = "" if session.experiment.tell_task else " and that the agent is never told"
    goal = f", dotted the one that earns most{told}" if wanted(session.family) else ""
    return section(
        "motion",
        "Motion before and after adaptation",
        f"How fast the robot goes the way that its task rewards, in up to {EPISODES} episodes of each of "
        f"{plural(len(titles), 'test task')}: {before} (grey) and {after} (blue){goal}. "
        "Above each, the mean return before and after.",
        svg("motion", WIDTH, 210 * -(-len(titles) // columns), draw),
        strips(session, tasks),
    )


def evenly(tasks: Tasks, n: int = SHOWN) -> Tasks:
    """n tasks or all, evenly spaced in the order of their first number."""
    order = tasks.params[:, 0].argsort()
    places = np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)
    return Tasks(*(x[order[places.tolist()]] for x in tasks))


def wanted(family: Family) -> bool:
    """Whether a task is a velocity to run at."""
    return [p.name for p in family.task_space] == ["velocity"]


def speeds_over_time(
    figure: Figure, recorder: Any, last: int, tasks: Tasks, titles: Sequence[str], columns: int
) -> None:
    """A panel a task: what a recorder of speeds saw in the first and in the last round."""
    rows = -(-len(titles) // columns)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for n, (axes, title) in enumerate(zip(panels, titles, strict=False)):
        for k, colour in ((0, PALE), (last, BLUE)):
            for e in range(EPISODES):
                if (speed := episode(recorder, k, e, n)) is not None:
                    axes.plot(recorder.dt * np.arange(len(speed)), speed, color=colour, lw=0.9)
        axes.set_title(title, fontsize=10.5)
        if wanted(recorder):
            axes.axhline(tasks.params[n, 0].item(), color=GREEN, lw=1.4, ls=(0, (1, 2)))
        else:
            axes.axhline(0, color=GREEN, lw=0.6)
    for axes in panels[len(titles) :]:
        axes.remove()
    figure.supxlabel("time (s)", fontsize=11)
    figure.supylabel("speed (m/s)", fontsize=11)


def episode(recorder: Any, k: int, e: int, task: int) -> Tensor | None:
    """An episode's speeds, [T + 1]; none where the round had fewer episodes."""
    try:
        found: Tensor = recorder.episode(k, e, task)
    except IndexError:
        return None
    return found


def strips(session: Session, tasks: Tasks) -> str:
    """One task in pictures, the median episode of the first round above that of the last."""
    family, middle = session.family, len(tasks.ids) // 2
    task = dict(zip((p.name for p in family.task_space), tasks.params[middle].tolist(), strict=True))
    try:
        shown = before_and_after(session, Tasks(*(x[[middle]] for x in tasks)))
        pictures = [png(filmstrip(family, x.poses, FRAMES)) for x in shown]
    except ConfigError as error:  # a machine without OpenGL
        return f'<p class="quiet">There are no pictures of the robot here: {escape(str(error))}.</p>'
    title = described(family, task) if len(task) <= 3 else family.name
    parts = [
        f'<p class="quiet">{label}</p>\n<img alt="{label}" width="{WIDTH}" src="{picture}">'
        for label, picture in zip((escape(x.label) for x in shown), pictures, strict=True)
    ]
    return "\n".join([f"<p>{escape(title)}, from the start of an episode to its end:</p>", *parts])


def png(picture: Picture) -> str:
    """A picture as an address that holds it."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
