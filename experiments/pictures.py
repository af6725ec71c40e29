"""The pictures of a study, for the results page: what is earned, by whom, and how it was learned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from metarl import Published
from metarl.envs import make, tasks_of

from . import curves, figures
from .few_shot_table import is_pictures

Study = Mapping[str, Any]


def of(name: str, study: Study) -> dict[str, str]:
    """All of a study's pictures, as SVG, by their files' names."""
    found = {} if is_pictures(study) else {name: adaptation(name, study)}  # a table says all of pictures
    if has_learned(study):
        found[f"{name}_learning"] = learning(name, study)
    if "per_task" in study:
        found[f"{name}_by_task"] = by_task(name, study)
    if study.get("solvers"):
        found[f"{name}_solvers"] = solvers(name, study)
    return found


def has_learned(study: Study) -> bool:
    """Whether there is a curve of its training: not of one iteration, as of who learns nothing."""
    return any(len(returns) > 1 for returns in study.get("learning", {}).get("returns", ()))


def adaptation(name: str, study: Study) -> str:
    """The adaptation curve over seeds, each seed a small circle, beside the published one."""
    published = [Published(**study["published"])] if study["published"] else []

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        curves.adaptation_curve(axes, study, published, study["agent"])
        axes.set_title(f"{study['agent']} on {study['family']}, {seeds(study)}")

    return figures.svg(name, 640, 380, draw)


def solvers(name: str, study: Study) -> str:
    """The agent's mean return of each round with those of the solvers."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        curves.solver_curves(axes, study, study["agent"])
        axes.set_title(f"{study['agent']} on {study['family']}, mean of {seeds(study)}")

    return figures.svg(f"{name}_solvers", 760, 380, draw)


def by_task(name: str, study: Study) -> str:
    """Each task's return against its one parameter, in and beyond the trained range, with the bounds."""
    family = make(study["settings"]["family"])
    (space,), both = family.task_space, (study, study["ood"])
    values = np.concatenate([found["params"] for found in both])
    scores = np.concatenate([found["per_task"] for found in both], 1)
    along = np.linspace(space.low, space.high, 201)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        floor, oracle = (b.cpu().numpy() for b in family.bounds(tasks_of(family, along[:, None])))
        bounds, unit = (floor, oracle), study.get("unit", "adaptations")
        figures.return_by_parameter(axes, space, values, scores, along, bounds, unit)
        axes.set_title(f"{study['agent']} on {study['family']}, mean of {seeds(study)}")

    return figures.svg(f"{name}_by_task", 760, 360, draw)


def learning(name: str, study: Study) -> str:
    """The training returns of all seeds against environment steps and minutes."""

    def draw(figure: Figure) -> None:
        curves.learning_of_seeds(figure, study["learning"])
        figure.suptitle(f"{study['agent']} on {study['family']}, {seeds(study)}", fontsize=12)

    return figures.svg(f"{name}_learning", 760, 360, draw)


def seeds(study: Study) -> str:
    """How many there are."""
    count = len(study["seeds"])
    return f"{count} seed" + "s" * (count != 1)
