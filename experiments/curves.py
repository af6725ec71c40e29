"""Curves: what is earned as a trial goes on, and as training does."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from metarl import Published
from metarl.evaluation import CONTROLS, SHORT
from metarl.statistics import seed_interval

from .figures import BLUE, DASHED, FAR, GREEN, INK, PALE, PUBLISHED, Array, near, number

Label = tuple[float, str, str]  # a value, what it is, and its colour
DOTTED = (0, (1, 2))
MARKERS = {"shuffled": "D", "wiped": "x"}  # of the controls


# --- trials


def adaptation_curve(axes: Axes, found: Mapping[str, Any], published: Sequence[Published], name: str) -> None:
    """Return of each round: mean with interval, controls, floor, oracle, published values; IQM of a few."""
    rounds = found["rounds"]
    steps, last = np.arange(len(rounds)), len(rounds) - 1
    mean, iqm = ([r[key] for r in rounds] for key in ("mean", "iqm"))
    seen = [found["floor"], *mean, *(value for p in published for value in p.returns)]
    labels = bounds(axes, found, seen)
    for p, colour, width in zip(published, PUBLISHED, (1.6, 1, 1, 1, 1), strict=False):
        values = p.returns * len(rounds) if len(p.returns) == 1 else p.returns[: len(rounds)]
        axes.plot(steps[: len(values)], values, color=colour, lw=width, ls=DASHED)
        labels.append((values[-1], f"{p.name}, published", colour))
    axes.fill_between(steps, *np.transpose([r["ci95"] for r in rounds]), color=BLUE, alpha=0.2, lw=0)
    labels.append((mean[-1], f"{name}, mean", BLUE))
    if len(rounds) <= SHORT:
        labels.append((iqm[-1], f"{name}, IQM", BLUE))
        axes.plot(steps, iqm, color=BLUE, lw=0.8)
        axes.plot(steps, mean, "o-", color=BLUE, lw=2.2, ms=5)
        for k, r in enumerate(rounds):
            for value in r.get("per_seed", ()):
                axes.plot(k, value, "o", ms=3.5, mfc="white", mec=BLUE, mew=0.8)
    else:
        axes.plot(steps, mean, color=BLUE, lw=1.4)
    labels += controls(axes, found.get("controls", {}), last, seen)
    along(axes, len(rounds), found)
    label_right(axes, oracle_above(axes, labels, found["oracle"]))


def along(axes: Axes, rounds: int, found: Mapping[str, Any]) -> None:
    """Both axes; the rounds have a tick each where they are few."""
    axes.set(xlabel=found.get("unit", "adaptations"), ylabel="return")
    margin = 0.12 if rounds <= SHORT else 0.01 * rounds
    axes.set_xlim(-margin, rounds - 1 + margin)
    if rounds <= SHORT:
        axes.set_xticks(np.arange(rounds))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def bounds(axes: Axes, found: Mapping[str, Any], seen: Sequence[float]) -> list[Label]:
    """Floor and oracle as dotted lines; an oracle far above what is `seen` is not drawn."""
    labels = [(found["floor"], "floor", INK)]
    if near(found["oracle"], seen):
        labels.append((found["oracle"], "oracle", GREEN))
    for value, _, colour in labels:
        axes.axhline(value, color=colour, lw=1, ls=DOTTED)
    return labels


def oracle_above(axes: Axes, labels: list[Label], oracle: float) -> list[Label]:
    """The labels with the oracle's, which is a number at the top where it is too far above to be drawn."""
    if (oracle, "oracle", GREEN) in labels:
        return labels
    return [*labels, (axes.get_ylim()[1], f"oracle: {number(oracle, 0)}", GREEN)]


def controls(axes: Axes, played: Mapping[str, Any], last: int, seen: Sequence[float]) -> list[Label]:
    """A mark at the last round for each control; one far below what is `seen` is only named."""
    labels = []
    for name, r in played.items():
        value, text = r["mean"], CONTROLS.get(name, name)
        if value < np.min(seen) - FAR * np.ptp(seen):
            value, text = min(seen), f"{text}: {number(value, 0)}"
        else:
            axes.plot(last, value, MARKERS.get(name, "s"), ms=7, mfc="white", mec=BLUE, mew=1.6, zorder=4)
        labels.append((value, text, BLUE))
    return labels


def solver_curves(axes: Axes, found: Mapping[str, Any], name: str) -> None:
    """The mean return of each round of the agent and of every solver, smoothed where they are many."""
    mean, solvers = [r["mean"] for r in found["rounds"]], found["solvers"]
    seen = [found["floor"], *mean, *(value for s in solvers.values() for value in s["rounds"])]
    labels = bounds(axes, found, seen)
    colours = matplotlib.colormaps["Dark2"].colors  # type: ignore[attr-defined]
    lines = [
        (s["rounds"], solver, colours[i % len(colours)], 1.2) for i, (solver, s) in enumerate(solvers.items())
    ]
    for values, text, colour, width in (*lines, (mean, name, BLUE, 2.2)):
        middle, smooth = running_mean(np.array(values))
        axes.plot(np.arange(len(mean))[middle], smooth, color=colour, lw=width)
        labels.append((smooth[-1], text, matplotlib.colors.to_hex(colour)))
    along(axes, len(mean), found)
    label_right(axes, oracle_above(axes, labels, found["oracle"]))


def label_right(axes: Axes, labels: Sequence[Label], line: float = 0.055) -> None:
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


def learning_curves(
    figure: Figure, metrics: Sequence[Mapping[str, Any]], lines: Mapping[str, str], what: str = "return"
) -> None:
    """Training returns against environment steps and wall-clock time; `lines` are metrics' legends."""
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key, label in zip(
        panels, ("env_steps", "seconds"), ("environment steps", "seconds of training"), strict=True
    ):
        x = np.array([m[key] for m in metrics])
        for i, (name, text) in enumerate(lines.items()):
            share = i / (len(lines) - 1) if len(lines) > 1 else 1
            colour = PALE if name == "return_0" else matplotlib.colormaps["Blues"](0.4 + 0.45 * share)
            smoothed_line(axes, x, np.array([m[name] for m in metrics]), colour, text)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
    panels[0].xaxis.set_major_formatter(EngFormatter())
    panels[0].set_ylabel(f"{what} in training tasks")
    panels[1].legend(frameon=False, loc="lower right")


def learning_of_seeds(figure: Figure, found: Mapping[str, Any]) -> None:
    """A study's training returns: each seed against steps, their mean and its 95 % interval, and minutes."""
    against_steps, against_time = figure.subplots(1, 2, sharey=True)
    returns, steps = np.array(found["returns"]), np.array(found["env_steps"])  # [S, P]
    if len(returns) > 1:
        low, high = returns.min(), returns.max()
        margin = 0.15 * (high - low)  # the interval of seeds that do not agree yet may be far wider
        against_steps.set_ylim(low - margin, high + margin)
        band = np.transpose([seed_interval(y[:, None]) for y in returns.T])
        against_steps.fill_between(steps.mean(0), *band, color=BLUE, alpha=0.15, lw=0)
    against_steps.plot(steps.mean(0), returns.mean(0), color=BLUE, lw=2.2)
    for x, seconds, y in zip(steps, np.array(found["seconds"]), returns, strict=True):
        against_steps.plot(x, y, color=BLUE, lw=0.7, alpha=0.6)
        against_time.plot(seconds / 60, y, color=BLUE, lw=0.9)  # no mean: machines are not always as free
    against_steps.set(xlabel="environment steps", ylabel=f"{found['what']}, training tasks", xlim=(0, None))
    against_steps.xaxis.set_major_formatter(EngFormatter())
    against_time.set(xlabel="minutes of training", xlim=(0, None))


def smoothed_line(axes: Axes, x: Array, y: Array, colour: Any, label: str | None = None) -> None:
    """A running mean over a twentieth of the points, the points themselves pale behind it."""
    middle, smooth = running_mean(y)
    if len(smooth) < len(y):
        axes.plot(x, y, color=colour, lw=0.8, alpha=0.35)
    axes.plot(x[middle], smooth, color=colour, lw=1.8, label=label, marker="o" if len(x) < 5 else "", ms=4)


def running_mean(y: Array) -> tuple[slice, Array]:
    """The mean over a window of a twentieth of the points, and the places of the windows' middles."""
    window = max(1, len(y) // 20)
    first = (window - 1) // 2
    smooth = np.convolve(y, np.full(window, 1 / window), "valid")
    return slice(first, first + len(smooth)), smooth


def diagnostics(figure: Figure, metrics: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """The agent's own numbers, one small panel each, from the iteration on that has them."""
    columns = min(6, len(names))
    panels = figure.subplots(-(-len(names) // columns), columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        places, values = np.array([(k, m[name]) for k, m in enumerate(metrics) if name in m]).T
        smoothed_line(axes, places, values, "#5b6770")
        axes.set_title(name, fontsize=10.5)
        axes.xaxis.set_major_locator(MaxNLocator(2, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(labelsize=9)
    for axes in panels[len(names) :]:
        axes.remove()
