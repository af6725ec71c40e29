"""The report's sections on single tasks: paths on a plane, returns over the task space, each one's gain."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from metarl import Family, Tasks, run_trial
from metarl.envs import tasks_of
from metarl.evaluation import SHORT

from . import adaptation, figures
from .figures import legend, number, svg
from .material import Material
from .page import plural, section
from .session import judge, reseeded

WIDTH = 960  # of the page's column, in pixels
PATHS = 12  # test tasks whose episodes are drawn
MAP_SIDE, MAP_STEPS = 12, 1_100_000  # tasks along a side of the map, environment steps for all of it


def plane(m: Material) -> str:
    """Episodes on the plane, where the family's tasks are goals on one."""
    family: Any = m.session.family
    if getattr(family, "view", "") != "plane":
        return ""
    protocol = m.session.experiment.evaluation
    with reseeded(m.session.rng, protocol.seed) as rng:
        tasks = Tasks(*(values[:PATHS] for values in family.sample_tasks(None, "test", rng)))
        trial = run_trial(family, m.session.agent, tasks, protocol.rounds, rng, protocol.greedy_last)
    first, last, goals = trial.rounds[0], trial.rounds[-1], family.goals(tasks).cpu().numpy()
    height = 190 * -(-len(goals) // 6)
    before, after = (legend(k, m.test["unit"]) for k in (0, len(trial.rounds) - 1))
    return section(
        "paths",
        "Paths before and after adaptation",
        f"Up to three episodes in each of {plural(len(goals), 'test task')}, from the dot, {before} (grey) "
        f"and {after} (blue): good paths lead straight to the star, the goal that the "
        "agent is never shown. Above each, the mean return before and after.",
        svg("paths", WIDTH, height, lambda figure: figures.paths(figure, first, last, goals)),
    )


def by_parameter(m: Material) -> str:
    """Where in the task space the agent does well, within the trained range and beyond."""
    kinds = {1: by_one_parameter, 2: by_two_parameters}
    space = m.session.family.task_space
    return kinds[len(space)](m) if len(space) in kinds and not space[0].values else ""


def by_one_parameter(m: Material) -> str:
    """Returns of all evaluated tasks against their parameter."""
    (space,), found = m.session.family.task_space, (m.test, m.ood)
    values = np.concatenate([f["params"] for f in found])[:, 0]
    scores = np.concatenate([f["scores"] for f in found], 1)
    curve = np.linspace(space.low, space.high, 201)
    bounds = m.session.family.bounds(tasks_of(m.session.family, curve[:, None]))
    floor, oracle = (bound.cpu().numpy() for bound in bounds)

    def draw(figure: Figure) -> None:
        bounds = floor, oracle
        figures.return_by_parameter(figure.subplots(), space, values, scores, curve, bounds, m.test["unit"])

    return section(
        "map",
        "Return by task",
        "How well the agent does in each kind of task, trained (shaded) and beyond: a good agent's blue dots "
        "are near the oracle, also where it was never trained. The tasks are the evaluation's own.",
        svg("map", WIDTH, 330, draw),
    )


def by_two_parameters(m: Material) -> str:
    """Heat maps over a grid of fresh tasks, under the protocol's rounds."""
    e, space = m.session.experiment, m.session.family.task_space
    steps = sum(e.evaluation.rounds) * m.session.family.horizon
    side = min(MAP_SIDE, int((MAP_STEPS / steps) ** 0.5))
    if side < 2:
        return ""  # a map would cost more than it tells
    places = [p.low + (p.high - p.low) * (np.arange(side) + 0.5) / side for p in space]
    grid = np.stack(np.meshgrid(*places, indexing="ij"), -1).reshape(-1, 2)
    found = judge(m.session, tasks=tasks_of(m.session.family, grid), controls=False)
    scores = found.scores.reshape(-1, side, side)
    told = sorted({0, min(1, len(scores) - 1), len(scores) - 1})
    maps = {legend(k, m.test["unit"]): scores[k] for k in told}
    return section(
        "map",
        "Return by task",
        f"How well the agent does in each of {side * side} tasks on a grid, each played as in the evaluation "
        "protocol: brighter is better, darkest is no better than the worst before adaptation, and what lies "
        "outside the box was never trained.",
        svg("map", WIDTH, 300, lambda figure: figures.return_maps(figure, maps, space)),
    )


def per_task(m: Material) -> str:
    """Each task's own gain, and the evaluation beyond the trained range in numbers."""
    family, rounds, unit = m.session.family, len(m.test["rounds"]), m.test["unit"]
    beyond = () if family.shared_splits else (("tasks beyond the trained range", m.ood),)
    found = {"tasks" if not beyond else "unseen tasks": m.test, **dict(beyond)}
    splits = {f"{number(f['tasks'], 0)} {name}": ends(family, f) for name, f in found.items()}
    names, what, brought = (legend(0, unit), legend(rounds - 1, unit)), "return", "adaptation brought"
    if rounds > SHORT:
        names, what, brought = ("floor", "agent"), f"total of {rounds} rounds", "there is above the floor"
    further = "<p>The adaptation curve beyond the trained range, under the same protocol:</p>"
    return section(
        "tasks",
        "Each task's return",
        f"One column a task, best first: the line from grey to blue is what {brought} in this very "
        "task, and the closer the blue dot to the green dash, the less there is left to gain.",
        svg("tasks", WIDTH, 310, lambda figure: figures.task_returns(figure, splits, names, what)),
        *((further, adaptation.curve("beyond", m.ood)) if beyond else ()),
    )


def ends(family: Family, found: Mapping[str, Any]) -> figures.Ends:
    """The first and the last round of each task; of many rounds all together, above as many floors."""
    scores, bounds = np.array(found["scores"]), family.bounds(tasks_of(family, found["params"]))
    floor, oracle = (bound.cpu().numpy() for bound in bounds)
    if len(scores) <= SHORT:
        return figures.Ends(scores[0], scores[-1], oracle)
    return figures.Ends(len(scores) * floor, scores.sum(0), len(scores) * oracle)
