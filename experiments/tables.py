"""What the command line prints: adaptation curves beside their floor, oracle and published values."""

import json
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from metarl import Evaluation, Family
from metarl.envs import FAMILIES, Robot
from metarl.runs import Run


def adaptation_table(run: Run, split: str) -> Table:
    """The kept evaluation of a split, a line a round, with the published values beside it."""
    found: dict[str, Any] = json.loads(run.evaluation(split).read_text())
    family: Any = FAMILIES.get(found["family"], Robot)
    published = family.published[:1] if split == "test" else ()
    title = f"{found['agent']} on {found['family']}, {split} split, {found['tasks']} tasks"
    if family.shared_splits:
        title += ", the same as in training"
    table = Table(title=escape(title))
    table.add_column("steps")
    for column in ("return", "95 %", "IQM", "worst 5 %", *(f"{p.name}, published" for p in published)):
        table.add_column(column, justify="right")
    for k, r in enumerate(found["rounds"]):
        anchors = [f"{p.returns[k]:.2f}" if k < len(p.returns) else "" for p in published]
        low, high = r["ci95"]
        spread = f"{low:.2f} .. {high:.2f}"
        table.add_row(str(k), f"{r['mean']:.2f}", spread, f"{r['iqm']:.2f}", f"{r['cvar5']:.2f}", *anchors)
    table.add_section()
    table.add_row("floor", f"{found['floor']:.2f}")
    table.add_row("oracle", f"{found['oracle']:.2f}")
    return table


def adapted_task(family: Family, task: Mapping[str, float], found: Evaluation) -> Table:
    """The adaptation to one task, a line a round, over its episodes."""
    units = {p.name: p.unit for p in family.task_space}
    text = ", ".join(f"{name} = {value:g} {units[name]}" for name, value in task.items())
    table = Table(title=escape(f"{found.family}: {text}"))
    for column in ("adaptations", "mean", "worst episode", "best episode"):
        table.add_column(column, justify="right" if column != "adaptations" else "left")
    for k, r in enumerate(found.returns):
        table.add_row(str(k), f"{r.mean():.2f}", f"{r.min():.2f}", f"{r.max():.2f}")
    table.add_section()
    for name, bound in zip(("floor", "oracle"), found.bounds, strict=True):
        table.add_row(name, f"{bound.mean():.2f}")
    return table
