"""The report's sections on adaptation: curve and controls, long trials' totals, solvers beside."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import gymnasium as gym
from matplotlib.figure import Figure

from metarl import Family, Published
from metarl.evaluation import CONTROLS, SHORT, shown

from . import curves
from .figures import number, svg
from .page import beside, plural, section, table
from .solvers import best, shares

Found = Mapping[str, Any]  # a split's evaluation.json
PROOF = """\
The marks at the last round are that round played anew: with <b>another task's memory</b> (diamond), and with
the <b>memory wiped</b> (cross). How far they are below the curve is what memory of the very task is worth;
random numbers are the same, so an agent that remembers nothing has both exactly on it."""


def tasks_in(family: Family, found: Found) -> str:
    """How many tasks were evaluated, and whether training had them, too."""
    if family.shared_splits:
        return f"{plural(found['tasks'], 'task')} (those of training: the family has no others)"
    return plural(found["tasks"], "unseen task")


def doing_nothing(family: Family) -> str:
    """What earns the floor: where there are only so many actions, none of them is to do nothing."""
    return "acting at random" if isinstance(family.action_space, gym.spaces.Discrete) else "doing nothing"


def adaptation(family: Family, found: Found) -> str:
    """The adaptation curve, and the same in numbers."""
    published = family.published
    sources = escape("; ".join(f"{p.name}: {p.source}" for p in published))
    note = f" Published values under their own protocols ({sources})." if published else ""
    proof = [f'<p class="quiet">{PROOF}</p>'] if found["controls"] else []
    thin = "; the thin line is the interquartile mean (IQM), that of the middle half of the tasks"
    return section(
        "adaptation",
        "Adaptation curve",
        f"What the agent earns in {tasks_in(family, found)}, after so many {found['unit']} in them. Higher "
        f"is better: the floor is what {doing_nothing(family)} earns, the oracle a bound for all who know "
        "the task.",
        curve("adaptation", found, published),
        '<p class="quiet">The band is the 95 % bootstrap interval of the mean over tasks'
        f"{thin * (len(found['rounds']) <= SHORT)}.{note}</p>",
        *proof,
        *totals(found),
    )


def curve(name: str, found: Found, published: Sequence[Published] = ()) -> str:
    """An adaptation curve as a picture and as a table."""

    def draw(figure: Figure) -> None:
        curves.adaptation_curve(figure.subplots(), found, published, "this run")

    height = (390 if published else 320) + 25 * len(found["controls"])
    return beside(svg(name, 515, height, draw), curve_table(found, published))


def curve_table(found: Found, published: Sequence[Published] = ()) -> str:
    """An adaptation curve in numbers, a column a round; of many rounds some."""
    told = shown(len(found["rounds"]))
    rounds = [found["rounds"][k] for k in told]
    rows = statistics(rounds)
    for p in published:
        values = p.returns * (told[-1] + 1) if len(p.returns) == 1 else p.returns
        rows.append([f"{p.name}, published", *(number(values[k]) if k < len(values) else "" for k in told)])
    blank = [""] * (len(told) - 1)
    rows += [[CONTROLS.get(name, name), *blank, number(r["mean"])] for name, r in found["controls"].items()]
    marks = {0: "ours", len(rows): "rule"}
    for key in ("floor", "oracle"):
        rows.append([key, *[number(found[key])] * len(rounds)])
    rows.append(["gain since before", *(number(r["mean"] - rounds[0]["mean"]) for r in rounds)])
    rows.append(["regret to oracle", *(number(found["oracle"] - r["mean"]) for r in rounds)])
    return table([found["unit"], *map(str, told)], rows, marks)


def statistics(columns: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The mean with its interval, the interquartile mean and the worst tasks, a row each."""
    rows = [["mean", *(number(r["mean"]) for r in columns)]]
    rows += [
        [f"95 %, {end}", *(number(r["ci95"][i]) for r in columns)] for i, end in ((0, "from"), (1, "to"))
    ]
    names = (("IQM", "iqm"), ("worst 5 %", "cvar5"))
    return rows + [[name, *(number(r[key]) for r in columns)] for name, key in names]


def totals(found: Found) -> list[str]:
    """What a long trial earns in all, and what its first rounds do; nothing of a short one."""
    columns = found["totals"]
    if len(found["rounds"]) <= SHORT:
        return []
    rows = statistics(columns)
    rows += [[key, *(number(found[key] * r["rounds"]) for r in columns)] for key in ("floor", "oracle")]
    head = ["first rounds", *(number(r["rounds"], 0) for r in columns)]
    words = "<p>The total return of a task's first so many rounds, in the last column of all of them:</p>"
    return [words, table(head, rows, {0: "ours", 5: "rule"})]


# --- solvers


def beside_solvers(found: Found) -> str:
    """The agent and the reference solvers on the same tasks; nothing where the family has none."""
    solvers = found["solvers"]
    if not solvers:
        return ""
    first, share = best(solvers), shares(found)[-1]
    return section(
        "solvers",
        "Beside the reference solvers",
        "Algorithms that need no training, since they are told how such tasks are drawn, in the same tasks "
        f"and rounds. In a trial the agent earns <b>{number(found['total']['mean'])}</b>, the best of them, "
        f"{escape(first)}, <b>{number(solvers[first]['total']['mean'])}</b>"
        + (f"; the ratio is <b>{share}</b>." if share else "."),
        svg(
            "solvers", 960, 360, lambda figure: curves.solver_curves(figure.subplots(), found, found["agent"])
        ),
        solver_table(found),
    )


def solver_table(found: Found) -> str:
    """The totals of the agent and of every solver, best first, and the agent's share of the best."""
    everyone = {found["agent"]: found, **found["solvers"]}
    order = sorted(everyone, key=lambda name: -everyone[name]["total"]["mean"])
    rows = []
    for name in order:
        low, high = everyone[name]["total"]["ci95"]
        sums = [number(r["mean"]) for r in everyone[name]["totals"]]
        rows.append([name, *sums, f"{number(low)} to {number(high)}"])
    marks = {order.index(found["agent"]): "ours", len(rows): "rule"}
    rows.append([f"{found['agent']} / best solver", *shares(found), ""])
    lengths = (r["rounds"] for r in found["totals"])
    return table(["total of the first", *(f"{plural(n, 'round')}" for n in lengths), "95 %"], rows, marks)
