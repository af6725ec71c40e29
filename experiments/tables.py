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

from .solvers import shares


def evaluation_tables(run: Run, split: str) -> list[Table]:
    """The kept evaluation of a split: its adaptation curve and, where there are some, its solvers."""
    found: dict[str, Any] = json.loads(run.evaluation(split).read_text(encoding="utf-8"))
    return [adaptation_table(found), *([solver_table(found)] if found["solvers"] else [])]


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
        anchors = [f"{p.returns[k]:.2f}" if k < len(p.returns) else "" for p in published]
        table.add_row(str(k), *statistics(found["rounds"][k]), *anchors)
    table.add_section()
    if len(found["rounds"]) > SHORT:
        table.add_row(f"all {len(found['rounds'])} rounds", *statistics(found["total"]), end_section=True)
    table.add_row("floor", f"{found['floor']:.2f}")
    table.add_row("oracle", f"{found['oracle']:.2f}")
    return table


def statistics(r: Mapping[str, Any]) -> list[str]:
    """Mean, interval, interquartile mean and worst tasks."""
    low, high = r["ci95"]
    return [f"{r['mean']:.2f}", f"{low:.2f} .. {high:.2f}", f"{r['iqm']:.2f}", f"{r['cvar5']:.2f}"]


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
    table.add_row("oracle", f"{found['oracle'] * len(found['rounds']):.2f}")
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
        table.add_row(name, f"{r.mean():.2f}", f"{r.min():.2f}", f"{r.max():.2f}")
    table.add_section()
    for name, bound in zip(("floor", "oracle"), found.bounds, strict=True):
        table.add_row(name, f"{bound.mean():.2f}")
    return table
