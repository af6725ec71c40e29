"""The pictures of reports and results: drawn on matplotlib's figures, kept as small SVG elements."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator

from metarl import Published, Rollout, TaskParameter

Array = np.ndarray

INK, PALE, BLUE, GREEN, ORANGE = "#222222", "#9a9a9a", "#0072b2", "#00775a", "#d55e00"
PUBLISHED = (ORANGE, "#aa4499", "#8a6d00", "#5b6770", "#b2182b")  # told apart by the colour-blind, too
FAR = 2.0  # a bound this many times the other values' range above them is named, not drawn
DASHED = (0, (4, 2))
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


# --- adaptation


def adaptation_curve(
    axes: Axes,
    rounds: Sequence[Mapping[str, Any]],
    floor: float,
    oracle: float,
    published: Sequence[Published],
    name: str,
) -> None:
    """Return after 0, 1, 2, ... adaptations: mean with interval and IQM, floor, oracle, published values."""
    steps, last = np.arange(len(rounds)), len(rounds) - 1
    mean, iqm = ([r[key] for r in rounds] for key in ("mean", "iqm"))
    seen = [floor, *mean, *(value for p in published for value in p.returns)]
    labels = [(floor, "floor", INK)]
    if near(oracle, seen):
        labels.append((oracle, "oracle", GREEN))
    for value, _, colour in labels:
        axes.axhline(value, color=colour, lw=1, ls=(0, (1, 2)))
    for p, colour, width in zip(published, PUBLISHED, (1.6, 1, 1, 1, 1), strict=False):
        values = p.returns * len(rounds) if len(p.returns) == 1 else p.returns[: len(rounds)]
        axes.plot(steps[: len(values)], values, color=colour, lw=width, ls=DASHED)
        labels.append((values[-1], f"{p.name}, published", colour))
    axes.fill_between(steps, *np.transpose([r["ci95"] for r in rounds]), color=BLUE, alpha=0.2, lw=0)
    axes.plot(steps, iqm, color=BLUE, lw=0.8)
    axes.plot(steps, mean, "o-", color=BLUE, lw=2.2, ms=5)
    for k, r in enumerate(rounds):
        for value in r.get("per_seed", ()):
            axes.plot(k, value, "o", ms=3.5, mfc="white", mec=BLUE, mew=0.8)
    labels += [(mean[-1], f"{name}, mean", BLUE), (iqm[-1], f"{name}, IQM", BLUE)]
    axes.set(xlabel="adaptations", ylabel="return", xlim=(-0.12, last + 0.12), xticks=steps)
    if (oracle, "oracle", GREEN) not in labels:
        labels.append((axes.get_ylim()[1], f"oracle: {number(oracle, 0)}", GREEN))
    label_right(axes, labels)


def near(bounds: Array | float, seen: Array | Sequence[float]) -> bool:
    """Whether bounds are close enough to what was seen for a picture that shows both."""
    return bool(np.max(bounds) <= np.max(seen) + FAR * np.ptp(seen))


def label_right(axes: Axes, labels: Sequence[tuple[float, str, str]], line: float = 0.055) -> None:
    """Write each label (value, text, colour) beside its line's right end, a `line` of the height apart."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    labels = sorted(labels)
    places = spread([value for value, _, _ in labels], line * (high - low))
    for (value, text, colour), place in zip(labels, places, strict=True):
        axes.annotate(
            text,
            xy=(1.0, value),
            xytext=(1.05, place),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            color=colour,
            va="center",
            fontsize=10.5,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.6,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Ascending values, moved as little as possible (in squares) to be at least `gap` apart."""
    groups: list[list[float]] = []  # of values less their rank's share of gaps; what overlaps shares a mean
    for rank, value in enumerate(values):
        groups.append([value - rank * gap])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    level = [float(np.mean(group)) for group in groups for _ in group]
    return [place + rank * gap for rank, place in enumerate(level)]


# --- learning


def learning_curves(figure: Figure, metrics: Sequence[Mapping[str, Any]]) -> None:
    """Each round's training return against environment steps and against wall-clock time."""
    rounds = sorted((key for key in metrics[0] if key.startswith("return_")), key=lambda key: int(key[7:]))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key, label in zip(
        panels, ("env_steps", "seconds"), ("environment steps", "seconds of training"), strict=True
    ):
        x = np.array([m[key] for m in metrics])
        for k, name in enumerate(rounds):
            colour = PALE if k == 0 else matplotlib.colormaps["Blues"](0.4 + 0.45 * k / (len(rounds) - 1))
            smoothed_line(axes, x, np.array([m[name] for m in metrics]), colour, legend(k))
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
    panels[0].xaxis.set_major_formatter(EngFormatter())
    panels[0].set_ylabel("return in training tasks")
    panels[1].legend(frameon=False, loc="lower right")


def legend(adaptations: int) -> str:
    """How a round is called."""
    if adaptations == 0:
        return "before adaptation"
    return f"after {adaptations} adaptation" + "s" * (adaptations > 1)


def smoothed_line(axes: Axes, x: Array, y: Array, colour: Any, label: str | None = None) -> None:
    """A running mean over a twentieth of the points, the points themselves pale behind it."""
    window = max(1, len(x) // 20)
    middle = slice((window - 1) // 2, (window - 1) // 2 + len(x) - window + 1)
    smooth = np.convolve(y, np.full(window, 1 / window), "valid")
    if window > 1:
        axes.plot(x, y, color=colour, lw=0.8, alpha=0.35)
    axes.plot(x[middle], smooth, color=colour, lw=1.8, label=label, marker="o" if len(x) < 5 else "", ms=4)


def diagnostics(figure: Figure, metrics: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """The agent's own numbers, one small panel each."""
    columns = min(6, len(names))
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        smoothed_line(axes, np.arange(len(metrics)), np.array([m[name] for m in metrics]), "#5b6770")
        axes.set_title(name, fontsize=10.5)
        axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(labelsize=9)
    for axes in panels[len(names) :]:
        axes.remove()


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
    axes: Axes, space: TaskParameter, values: Array, scores: Array, curve: Array, bounds: tuple[Array, Array]
) -> None:
    """Return against one task parameter: tasks `values` [N] scored [R, N], and bounds along a `curve` [C]."""
    order = np.argsort(values)
    axes.axvspan(space.train_low, space.train_high, color="#f0f0f0", lw=0)
    for bound, name, colour in zip(bounds, ("floor", "oracle"), (INK, GREEN), strict=True):
        seen = slice(None if name == "floor" or near(bound, scores) else 0)
        label = name if len(curve[seen]) else f"{name}: far above"
        axes.plot(curve[seen], bound[seen], color=colour, lw=1.2, label=label)
    for k, colour in ((0, PALE), (len(scores) - 1, BLUE)):
        axes.plot(values[order], scores[k, order], "o-", color=colour, lw=1, ms=3.5, label=legend(k))
    axes.set(xlabel=f"{space.name} ({space.unit}); grey: trained range", ylabel="return")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def task_returns(figure: Figure, splits: Mapping[str, tuple[Array, Array]]) -> None:
    """Each task's return before and after adaptation, and its oracle: scores [R, N], oracle [N] a split."""
    panels = figure.subplots(1, len(splits), squeeze=False)[0]
    for axes, (title, (scores, oracle)) in zip(panels, splits.items(), strict=True):
        order = np.argsort(scores[-1])[::-1]
        x, first, last = np.arange(1, len(order) + 1), scores[0, order], scores[-1, order]
        axes.vlines(x, first, last, color="#d4d4d4", lw=1.5)
        if near(oracle, scores):
            axes.plot(x, oracle[order], "_", color=GREEN, ms=6, mew=1.4, label="oracle")
        else:
            axes.plot([], [], "_", color=GREEN, ms=6, mew=1.4, label="oracle: far above")
        axes.plot(x, first, "o", color=PALE, ms=4, label=legend(0))
        axes.plot(x, last, "o", color=BLUE, ms=4, label=legend(len(scores) - 1))
        axes.set(title=title, xlabel="tasks, best first")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_ylabel("return")
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def number(value: float, digits: int = 2) -> str:
    """A number as a person reads it: thousands apart, and a true minus."""
    return f"{value:,.{digits}f}".replace("-", "−")
