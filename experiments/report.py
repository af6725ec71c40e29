"""A run's report: one HTML file that explains itself, opens offline, and is the same for the same run."""

import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from metarl import Published, RunError, Tasks, __version__, run_trial
from metarl.checkpoint import write_atomically
from metarl.envs import tasks_of
from metarl.runs import Run

from . import figures, page
from .config import Experiment, build, flat, read, shipped, to_tree
from .figures import number, svg
from .motion import motion
from .page import beside, plural, section, table
from .session import Session, judge, reseeded

WIDTH = 960  # of the page's column, in pixels
PATHS = 12  # test tasks whose episodes are drawn
MAP_SIDE, MAP_STEPS = 12, 1_100_000  # tasks along a side of the map, environment steps for all of it
TOTALS = ("iteration", "env_steps", "seconds")


class Material(NamedTuple):
    """What a report is made of: the run's files, and its trained session to play a little more."""

    run: Run
    session: Session
    test: dict[str, Any]
    ood: dict[str, Any]
    metrics: list[dict[str, Any]]


def write_report(run: Run, session: Session) -> Path:
    """Write the report of a run that is trained and evaluated, and say where."""
    test, ood = (json.loads(run.evaluation(split).read_text(encoding="utf-8")) for split in ("test", "ood"))
    material = Material(run, session, test, ood, run.read_metrics())
    if not material.metrics:
        raise RunError(f"{run.metrics} is missing or empty: there is no training to report")
    title = f"{test['agent']} on {test['family']}"
    write_atomically(run.report, page.whole(title, filter(None, (part(material) for part in SECTIONS))))
    return run.report


def curve_table(found: Mapping[str, Any], published: Sequence[Published] = ()) -> str:
    """An adaptation curve in numbers, a column an adaptation."""
    rounds = found["rounds"]
    rows = [["mean", *(number(r["mean"]) for r in rounds)]]
    rows += [[f"95 %, {end}", *(number(r["ci95"][i]) for r in rounds)] for i, end in ((0, "from"), (1, "to"))]
    rows += [
        [name, *(number(r[key]) for r in rounds)] for name, key in (("IQM", "iqm"), ("worst 5 %", "cvar5"))
    ]
    for p in published:
        values = p.returns * len(rounds) if len(p.returns) == 1 else p.returns[: len(rounds)]
        rows.append([f"{p.name}, published", *map(number, values), *[""] * (len(rounds) - len(values))])
    marks = {0: "ours", len(rows): "rule"}
    for key in ("floor", "oracle"):
        rows.append([key, *[number(found[key])] * len(rounds)])
    rows.append(["gain since before", *(number(r["mean"] - rounds[0]["mean"]) for r in rounds)])
    rows.append(["regret to oracle", *(number(found["oracle"] - r["mean"]) for r in rounds)])
    return table(["adaptations", *map(str, range(len(rounds)))], rows, marks)


# --- sections


def header(m: Material) -> str:
    """What was run, what came of it in one sentence, and how to run it again."""
    e, rounds = m.session.experiment, m.test["rounds"]
    protocol = e.evaluation
    lead = (
        f"In {tasks_in(m)} the mean return goes from "
        f"<b>{number(rounds[0]['mean'])}</b> before adaptation to <b>{number(rounds[-1]['mean'])}</b> "
        f"{figures.legend(len(rounds) - 1)}. Doing nothing earns {number(m.test['floor'])} (the floor); no "
        f"agent can earn more than {number(m.test['oracle'])}, even knowing the tasks (the oracle)."
    )
    facts = {
        "family": f"{m.session.family.name}: {m.session.family.summary}",
        "agent": m.test["agent"],
        "seed": f"{e.seed} (evaluation: {protocol.seed})",
        "protocol": f"{' + '.join(map(str, protocol.rounds))} episodes of each task, an adaptation between "
        f"each two rounds; {'no exploration in the last round' if protocol.greedy_last else 'all exploring'}",
        "trained with": f"{' + '.join(map(str, e.rounds))} episodes of {plural(e.meta_batch_size, 'task')} "
        f"in each of {plural(len(m.metrics), 'iteration')}",
        "report made with": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    return (
        f"<header>\n<h1>{escape(m.test['agent'])} on {escape(m.test['family'])}</h1>\n"
        f'<p class="quiet">{escape(e.description)}</p>\n<p class="lead">{lead}</p>\n<dl>{listed}'
        f"<dt>command</dt><dd><code>{escape(command(e))}</code></dd></dl>\n<details><summary>all settings "
        f"(run.yaml)</summary><pre>{escape(m.run.config.read_text(encoding='utf-8'))}</pre></details>\n</header>"
    )


def adaptation(m: Material) -> str:
    """The adaptation curve, and the same in numbers."""
    published = m.session.family.published
    sources = escape("; ".join(f"{p.name}: {p.source}" for p in published))
    note = f" Published values under their own protocols ({sources})." if published else ""
    return section(
        "adaptation",
        "Adaptation curve",
        f"What the agent earns in {tasks_in(m)}, after each adaptation to them. Higher is "
        "better: the floor is what doing nothing earns, the oracle a bound for all who know the task.",
        curve("adaptation", m.test, published),
        '<p class="quiet">The band is the 95 % bootstrap interval of the mean over tasks; the thin line is '
        f"the interquartile mean (IQM), that of the middle half of the tasks.{note}</p>",
    )


def curve(name: str, found: Mapping[str, Any], published: Sequence[Published] = ()) -> str:
    """An adaptation curve as a picture and as a table."""

    def draw(figure: Figure) -> None:
        known = found["rounds"], found["floor"], found["oracle"], published
        figures.adaptation_curve(figure.subplots(), *known, "this run")

    return beside(svg(name, 515, 390 if published else 320, draw), curve_table(found, published))


def learning(m: Material) -> str:
    """The learning curve, twice, and what the agent says of itself."""
    names = [key for key in m.metrics[0] if key not in TOTALS and not key.startswith("return_")]
    pictures = [svg("learning", WIDTH, 300, lambda figure: figures.learning_curves(figure, m.metrics))]
    if names:
        height = 135 * -(-len(names) // 6)
        small = svg(
            "diagnostics", WIDTH, height, lambda figure: figures.diagnostics(figure, m.metrics, names)
        )
        pictures += ['<p class="quiet">The agent\'s own numbers, against iterations:</p>', small]
    return section(
        "learning",
        "Learning curve",
        "What the agent earns in training tasks as meta-training goes on, by experience (left) and by time "
        "(right): the gap between the lines is what adaptation is worth, and training should widen it.",
        *pictures,
    )


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
    return section(
        "paths",
        "Paths before and after adaptation",
        f"Up to three episodes in each of {plural(len(goals), 'test task')}, from the dot, before adaptation "
        f"(grey) and {figures.legend(len(trial.rounds) - 1)} (blue): good paths lead straight to the star, "
        "the goal that the agent is never shown. Above each, the mean return before and after.",
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
        figures.return_by_parameter(figure.subplots(), space, values, scores, curve, bounds)

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
    scores = judge(m.session, tasks=tasks_of(m.session.family, grid)).scores.reshape(-1, side, side)
    maps = {figures.legend(k): scores[k] for k in sorted({0, min(1, len(scores) - 1), len(scores) - 1})}
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
    splits = {}
    beyond = () if m.session.family.shared_splits else (("tasks beyond the trained range", m.ood),)
    for name, found in (("tasks" if not beyond else "unseen tasks", m.test), *beyond):
        oracle = m.session.family.bounds(tasks_of(m.session.family, found["params"])).oracle.cpu().numpy()
        splits[f"{found['tasks']} {name}"] = np.array(found["scores"]), oracle
    further = "<p>The adaptation curve beyond the trained range, under the same protocol:</p>"
    return section(
        "tasks",
        "Each task's return",
        "One column a task, best first: the line from grey to blue is what adaptation brought in this very "
        "task, and the closer the blue dot to the green dash, the less there is left to gain.",
        svg("tasks", WIDTH, 310, lambda figure: figures.task_returns(figure, splits)),
        *((further, curve("beyond", m.ood)) if beyond else ()),
    )


def costs(m: Material) -> str:
    """What training, adaptation and evaluation took."""
    e, last, horizon = m.session.experiment, m.metrics[-1], m.session.family.horizon
    iterations, adaptations = len(m.metrics), e.evaluation.rounds[:-1]
    episodes = sum(e.evaluation.rounds) * (m.test["tasks"] + m.ood["tasks"])
    each = " + ".join(map(str, adaptations)) or "0"
    rows = [
        ("training: iterations", number(iterations, 0)),
        ("training: episodes", number(iterations * e.meta_batch_size * sum(e.rounds), 0)),
        ("training: environment steps", number(last["env_steps"], 0)),
        ("training: seconds", number(last["seconds"], 1)),
        ("training: seconds an iteration", number(last["seconds"] / iterations)),
        ("adaptation to one task: episodes before each adaptation", each),
        ("adaptation to one task: environment steps, at most", number(sum(adaptations) * horizon, 0)),
        ("evaluation, unseen tasks and beyond: episodes", number(episodes, 0)),
        ("evaluation, unseen tasks and beyond: environment steps, at most", number(episodes * horizon, 0)),
    ]
    return section(
        "costs",
        "Costs",
        "What these results took, in experience and in time; an episode that ends early costs fewer steps.",
        table((), rows, {5: "rule", 7: "rule"}),
    )


def moving(m: Material) -> str:
    """Robots: how fast they run, and what that looks like."""
    return motion(m.session)


SECTIONS = (header, adaptation, learning, plane, moving, by_parameter, per_task, costs)


# --- facts


def tasks_in(m: Material) -> str:
    """How many tasks were evaluated, and whether training had them, too."""
    if m.session.family.shared_splits:
        return f"{plural(m.test['tasks'], 'task')} (those of training: the family has no others)"
    return plural(m.test["tasks"], "unseen task")


def versions() -> dict[str, str]:
    """The versions of what a result depends on."""
    others = {name: version(name) for name in ("torch", "numpy", "gymnasium", "mujoco")}
    return {"metarl": __version__, **others, "python": platform.python_version()}


def command(experiment: Experiment) -> str:
    """The shortest command that trains this experiment: a shipped one, and what is set otherwise."""
    ours, shortest = flat(to_tree(experiment)), "metarl train run.yaml"
    found = []
    for name in shipped():
        other = build(read(name))
        theirs = flat(to_tree(other))
        if (experiment.family_name, experiment.agent.name) == (other.family_name, other.agent.name):
            known = ("description", "family.digest")
            changed = {k: v for k, v in ours.items() if v != theirs.get(k) and k not in known}
            flags = [f"--{key} {shlex.quote(json.dumps(value))}" for key, value in changed.items()]
            found.append(" ".join(["metarl train", name, *flags]))
    return min(found, key=len, default=shortest)
