"""The pictures of reports and results: drawn on matplotlib's figures, kept as small SVG elements."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from metarl import Rollout, TaskParameter

Array = np.ndarray

INK, PALE, BLUE, GREEN, ORANGE = "#222222", "#9a9a9a", "#0072b2", "#00775a", "#d55e00"
PUBLISHED = (ORANGE, "#aa4499", "#8a6d00", "#5b6770", "#b2182b")  # told apart by the colour-blind, too
FAR = 2.0  # a bound this many times the other values' range above them is named, not drawn
DASHED = (0, (4, 2))
DRAWN = 200  # tasks of a split that get a column each
DECIMALS = re.compile(r"\d+\.\d{3,}")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, and found by a search
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib's own; a page may put a narrower one instead
    "font.size": 11,
    "axes.edgecolor": "#b8b8b8",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": "#b8b8b8",
    "ytick.color": "#b8b8b8",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


# --- figures as SVG


def svg(name: str, width: int, height: int, draw: Callable[[Figure], None]) -> str:
    """An SVG element of so many pixels; its ids carry the name, so that several live in one page."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure((width / 72, height / 72), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return slim(text.getvalue(), name)


def slim(text: str, name: str) -> str:
    """The <svg> element alone, without ids that nothing refers to and digits that nobody sees."""
    text = text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
    text = re.sub(r' xmlns:xlink="[^"]*"| version="1.1"', "", text).replace("xlink:href", "href")
    text = re.sub(r' (width|height)="([\d.]+)pt"', r' \1="\2"', text)
    text = re.sub(r"<[^>]*>", lambda tag: DECIMALS.sub(lambda x: f"{float(x[0]):.2f}", tag[0]), text)
    referred = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda i: f' id="{name}-{i[1]}"' if i[1] in referred else "", text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    return re.sub(r">\s+<", ">\n<", text).strip()


# --- words and limits


def number(value: float, digits: int | None = None) -> str:
    """A number as a person reads it: thousands apart, a true minus, and three digits of shares."""
    digits = (3 if abs(value) < 1 else 2) if digits is None else digits  # as in statistics.rounded
    return f"{value:,.{digits}f}".replace("-", "−")


def legend(k: int, unit: str = "adaptations") -> str:
    """How a round is called, by what lies before it."""
    if k == 0:
        return "in the first episode" if unit == "episodes" else "before adaptation"
    return f"after {k} {unit if k > 1 else unit[:-1]}"


def near(bounds: Array | float, seen: Array | Sequence[float]) -> bool:
    """Whether bounds are close enough to what was seen for a picture that shows both."""
    return bool(np.max(bounds) <= np.max(seen) + FAR * np.ptp(seen))


# --- tasks


def paths(figure: Figure, before: Rollout, after: Rollout, goals: Array, columns: int = 6) -> None:
    """A few episodes of each task before and after adaptation, a panel a task; goals [N, 2]."""
    panels = figure.subplots(-(-len(goals) // columns), columns, sharex=True, sharey=True, squeeze=False).flat
    figure.set_layout_engine(None)  # a second faster than the layout that looks at every label
    figure.subplots_adjust(0.03, 0.07, 0.99, 0.93, 0.06, 0.2)
    walked = [(walks(rollout), colour) for rollout, colour in ((before, PALE), (after, BLUE))]
    for n, (axes, goal) in enumerate(zip(panels, goals, strict=False)):
        for walk, colour in ((walk, colour) for found, colour in walked for walk in found[n]):
            axes.plot(*walk.T, color=colour, lw=0.8, alpha=0.8)
            axes.plot(*walk[0], "o", color=INK, ms=3.5, zorder=3)
        axes.plot(*goal, "*", color=ORANGE, mec="white", mew=0.7, ms=15, zorder=4)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(f"{earned(before, n)} → {earned(after, n)}", fontsize=10.5)
        axes.set_aspect("equal")
        axes.tick_params(labelsize=9)
    ends = np.concatenate([goals, *(walk[:1] for found, _ in walked for task in found for walk in task)])
    middle, half = (ends.min(0) + ends.max(0)) / 2, 0.75 * np.ptp(ends, 0).max()
    (left, bottom), (right, top) = middle - half, middle + half
    panels[0].set(xlim=(left, right), ylim=(bottom, top))  # a stray walk may leave the picture
    for axes in panels[len(goals) :]:
        axes.remove()


def walks(rollout: Rollout, episodes: int = 3) -> list[list[Array]]:
    """The positions [steps + 1, 2] of each task's first episodes, each to its end."""
    valid = rollout.valid[:, :, :episodes].cpu().numpy()
    places = torch.cat([rollout.obs[:1], rollout.next_obs])[:, :, :episodes, :2].cpu().numpy()
    lengths = valid.sum(0) + 1  # [N, E]
    return [[places[:end, n, e] for e, end in enumerate(ends)] for n, ends in enumerate(lengths)]


def earned(rollout: Rollout, task: int) -> str:
    """A task's mean return."""
    return number(rollout.returns[task].mean().item(), 1)


def return_maps(figure: Figure, maps: Mapping[str, Array], space: Sequence[TaskParameter]) -> None:
    """Heat maps of the return over two task parameters, each [X, Y]; the trained range is a box."""
    x, y = space
    every = np.stack(list(maps.values()))
    lowest = every[0].min()  # of the first map: what became worse than anything there is as dark as that
    panels = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
    for axes, (title, values) in zip(panels, maps.items(), strict=True):
        edges = (np.linspace(p.low, p.high, size + 1) for p, size in zip(space, values.shape, strict=True))
        mesh = axes.pcolormesh(*edges, values.T, vmin=lowest, vmax=every.max(), ec="face", linewidth=0.4)
        corner, sides = (x.train_low, y.train_low), (x.train_high - x.train_low, y.train_high - y.train_low)
        axes.add_patch(Rectangle(corner, *sides, fill=False, ec="white", lw=4))
        axes.add_patch(Rectangle(corner, *sides, fill=False, ec=INK, lw=1.6))
        axes.set(title=title, xlabel=f"{x.name} ({x.unit})")
        if x.unit == y.unit:
            axes.set_aspect("equal")
    panels[0].set_ylabel(f"{y.name} ({y.unit})")
    extend = "min" if every.min() < lowest else "neither"
    figure.colorbar(mesh, ax=panels, label="return", extend=extend).outline.set_visible(False)


def return_by_parameter(
    axes: Axes,
    space: TaskParameter,
    values: Array,
    scores: Array,
    curve: Array,
    bounds: tuple[Array, Array],
    unit: str = "adaptations",
) -> None:
    """Return against one task parameter: tasks `values` [N] scored [R, N], and bounds along a `curve` [C]."""
    order = np.argsort(values)
    axes.axvspan(space.train_low, space.train_high, color="#f0f0f0", lw=0)
    for bound, name, colour in zip(bounds, ("floor", "oracle"), (INK, GREEN), strict=True):
        seen = slice(None if name == "floor" or near(bound, scores) else 0)
        label = name if len(curve[seen]) else f"{name}: far above"
        axes.plot(curve[seen], bound[seen], color=colour, lw=1.2, label=label)
    for k, colour in ((0, PALE), (len(scores) - 1, BLUE)):
        axes.plot(values[order], scores[k, order], "o-", color=colour, lw=1, ms=3.5, label=legend(k, unit))
    axes.set(xlabel=f"{space.name} ({space.unit}); grey: trained range", ylabel="return")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


class Ends(NamedTuple):
    """Where each of N tasks goes from and to, and how far it could."""

    first: Array  # [N]
    last: Array  # [N]
    oracle: Array  # [N]


def task_returns(figure: Figure, splits: Mapping[str, Ends], names: tuple[str, str], what: str) -> None:
    """Each task's return at both ends, which have `names`, and its oracle; a panel a split."""
    panels = figure.subplots(1, len(splits), squeeze=False)[0]
    for axes, (title, (first, last, oracle)) in zip(panels, splits.items(), strict=True):
        order = np.argsort(last)[::-1]
        places = np.linspace(0, len(order) - 1, min(DRAWN, len(order))).round().astype(int)
        x, drawn = places + 1, order[places]
        axes.vlines(x, first[drawn], last[drawn], color="#d4d4d4", lw=1.5)
        if near(oracle, [*first, *last]):
            axes.plot(x, oracle[drawn], "_", color=GREEN, ms=6, mew=1.4, label="oracle")
        else:
            axes.plot([], [], "_", color=GREEN, ms=6, mew=1.4, label="oracle: far above")
        axes.plot(x, first[drawn], "o", color=PALE, ms=4, label=names[0])
        axes.plot(x, last[drawn], "o", color=BLUE, ms=4, label=names[1])
        axes.set(title=title, xlabel="tasks, best first")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel(what)
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
