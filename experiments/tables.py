"""What the command line prints: adaptation curves beside their floor, oracle and published values."""

import json
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from metarl import Evaluation, Family
from metarl.envs import FAMILIES, Robot
from metarl.evaluation import CONTROLS, SHORT, shown
from metarl.runs import Run
from metarl.statistics import rounded

from .solvers import shares


def evaluation_tables(run: Run, split: str) -> list[Table]:
    """The kept evaluation of a split: its adaptation curve and, where there are some, its solvers."""
    found: dict[str, Any] = json.loads(run.evaluation(split).read_text(encoding="utf-8"))
    tables = [adaptation_table(found), *([solver_table(found)] if found["solvers"] else [])]
    also = run.evaluation("also")
    if split == "test" and also.exists():
        tables.append(elsewhere_table(json.loads(also.read_text(encoding="utf-8"))))
    return tables


def elsewhere_table(found: Mapping[str, Any]) -> Table:
    """The last round under the other protocols that the agent was judged by."""
    table = Table(title="other protocols, last round")
    for column in ("", "family", "return", "95 %"):
        table.add_column(column, justify="right" if column in ("return", "95 %") else "left")
    for name, f in found.items():
        table.add_row(escape(name), f["family"], *statistics(f["rounds"][-1])[:2])
    return table


def adaptation_table(found: Mapping[str, Any]) -> Table:
    """A line a round, of many rounds some, with the published values beside it; below, the controls."""
    family: Any = FAMILIES.get(found["family"], Robot)
    published, anew = family.published[:1] if found["split"] == "test" else (), found["controls"].items()
    title = f"{found['agent']} on {found['family']}, {found['split']} split, {found['tasks']} tasks"
    if family.shared_splits:
        title += ", the same as in training"
    told = (
        f"last round, {CONTROLS.get(name, name)}: {statistics(r)[0]} ({statistics(r)[1]})" for name, r in anew
    )
    table = Table(title=escape(title), caption="\n".join(told), caption_justify="left", caption_style="")
    table.add_column(found["unit"])
    for column in ("return", "95 %", "IQM", "worst 5 %", *(f"{p.name}, published" for p in published)):
        table.add_column(column, justify="right", no_wrap=column == "95 %")
    for k in shown(len(found["rounds"])):
        anchors = [rounded(p.returns[k]) if k < len(p.returns) else "" for p in published]
        table.add_row(str(k), *statistics(found["rounds"][k]), *anchors)
    table.add_section()
    if len(found["rounds"]) > SHORT:
        table.add_row(f"all {len(found['rounds'])} rounds", *statistics(found["total"]), end_section=True)
    table.add_row("floor", rounded(found["floor"]))
    table.add_row("oracle", rounded(found["oracle"]))
    return table


def statistics(r: Mapping[str, Any]) -> list[str]:
    """Mean, interval, interquartile mean and worst tasks."""
    low, high = r["ci95"]
    return [rounded(r["mean"]), f"{rounded(low)} .. {rounded(high)}", rounded(r["iqm"]), rounded(r["cvar5"])]


def solver_table(found: Mapping[str, Any]) -> Table:
    """The total of all rounds, of the agent and of every reference solver, best first."""
    everyone = {found["agent"]: found["total"]}
    everyone |= {name: solver["total"] for name, solver in found["solvers"].items()}
    table = Table(title=f"total of {len(found['rounds'])} rounds, beside the reference solvers")
    table.add_column("")
    for column in ("total", "95 %"):
        table.add_column(column, justify="right")
    for name, r in sorted(everyone.items(), key=lambda item: -item[1]["mean"]):
        table.add_row(name, *statistics(r)[:2], style="bold" if name == found["agent"] else None)
    table.add_section()
    table.add_row("oracle", rounded(found["oracle"] * len(found["rounds"])))
    table.add_row(f"{found['agent']} / best solver", shares(found)[-1])
    return table


def adapted_task(family: Family, task: Mapping[str, float], found: Evaluation) -> Table:
    """The adaptation to one task, a line a round, of many rounds some, over its episodes."""
    units = {p.name: p.unit for p in family.task_space}
    text = ", ".join(f"{name} = {value:g} {units[name]}" for name, value in task.items())
    table = Table(title=escape(f"{found.family}: {text}"))
    table.add_column(found.unit)
    for column in ("mean", "worst episode", "best episode"):
        table.add_column(column, justify="right")
    told = {str(k): found.returns[k] for k in shown(len(found.returns))}
    if found.wiped is not None:
        told[f"last, {CONTROLS['wiped']}"] = found.wiped
    for name, r in told.items():
        table.add_row(name, *(rounded(x.item()) for x in (r.mean(), r.min(), r.max())))
    table.add_section()
    for name, bound in zip(("floor", "oracle"), found.bounds, strict=True):
        table.add_row(name, rounded(bound.mean().item()))
    return table
