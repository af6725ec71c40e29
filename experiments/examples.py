"""The report's sections on few-shot problems: episodes with answers, confusions, fits, gradient steps."""

from collections import Counter
from html import escape
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor

from metarl import Tasks, Trial, run_trial, statistics
from metarl.envs import Picture

from .figures import BLUE, GREEN, ORANGE, PALE, number, svg
from .material import Material
from .motion import evenly, png
from .page import plural, section, table
from .session import reseeded

WIDTH = 960  # of the page's column, in pixels
CELL, FRAME = 56, 3  # of a contact sheet: pixels of a picture, and of its frame
ROWS, ACROSS = 5, 14  # its classes and queries
PAIRS = 8  # of classes that are confused most
CURVES = 6  # tasks whose fits are drawn
STEPS = (0, 1, 2, 3, 5, 10, 20, 50)  # of adaptation by gradients
TASKS = 100  # that are adapted so often
INLINE = "display:inline;vertical-align:middle"  # of a picture in a line of words
RIGHT, WRONG = (0, 119, 90), (213, 94, 0)  # green and orange, which the colour-blind tell apart


def examples(m: Material) -> str:
    """What the agent answers, example by example; nothing where the family is of another kind."""
    view = getattr(m.session.family, "view", "")
    kinds = {"pictures": (contact_sheet, confusions, steps), "curve": (fits, steps)}
    return "\n".join(filter(None, (part(m) for part in kinds.get(view, ()))))


def played(m: Material, n: int | None = None) -> Trial:
    """A trial of n test tasks, or of all."""
    family, protocol = m.session.family, m.session.experiment.evaluation
    with reseeded(m.session.rng, protocol.seed) as rng:
        tasks = family.sample_tasks(None, "test", rng)
        tasks = tasks if n is None else Tasks(*(x[:n] for x in tasks))
        return run_trial(family, m.session.agent, tasks, protocol.rounds, rng)


# --- pictures


def contact_sheet(m: Material) -> str:
    """One episode: the support set, and what the queries were taken for."""
    *_, support, query = played(m, 1).rounds
    words = (
        "The support set of one test episode on the left, a row a class, and its queries. Green frames are "
        "right answers, orange ones wrong, with the number of the class that they were taken for."
    )
    picture = png(sheet(*((x.obs[0, 0], x.target[0, 0, :, 0], x.action[0, 0]) for x in (support, query))))
    image = f'<img alt="contact sheet" style="max-width:100%" src="{picture}">'
    return section("episode", "One episode", words, image)


def sheet(support: tuple[Tensor, Tensor, Tensor], query: tuple[Tensor, Tensor, Tensor]) -> Picture:
    """Rows of classes: pictures [E, C, H, W] with labels [E] and answers [E], drawn."""
    classes = min(ROWS, int(query[1].max()) + 1)
    shots = min(5, int((support[1] == 0).sum()))
    across = min(ACROSS, int((query[1] == 0).sum()))
    size = CELL + 2 * FRAME
    page = Image.new("RGB", ((shots + across) * size + 40, classes * size), "white")
    draw = ImageDraw.Draw(page)
    for c in range(classes):
        top = c * size
        draw.text((4, top + size // 3), f"{c + 1}", fill="black")
        shown: list[tuple[Any, int, int | None]] = [
            (support, e, None) for e in (support[1] == c).nonzero()[:shots, 0].tolist()
        ]
        shown += [(query, e, c) for e in (query[1] == c).nonzero()[:across, 0].tolist()]
        for k, ((x, _, answer), e, right) in enumerate(shown):
            left = 20 + k * size + (10 if right is not None else 0)
            said = int(answer[e])
            colour = (170, 170, 170) if right is None else RIGHT if said == right else WRONG
            draw.rectangle((left, top, left + size - 2, top + size - 2), fill=colour)
            page.paste(thumbnail(x[e]), (left + FRAME - 1, top + FRAME - 1))
            if right not in (None, said):
                draw.text((left + FRAME + 2, top + FRAME), f"{said + 1}", fill=WRONG)
    return np.asarray(page)


def thumbnail(x: Tensor) -> Image.Image:
    """A picture [C, H, W] with values in [0, 1], small; of one channel, ink on paper."""
    grey = (255 * (1 - x if len(x) == 1 else x)).round().byte().cpu().numpy()
    image = Image.fromarray(grey[0]) if len(grey) == 1 else Image.fromarray(grey.transpose(1, 2, 0))
    return image.convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS)


def confusions(m: Material) -> str:
    """Which classes are taken for which, in all test episodes together."""
    trial, family = played(m), m.session.family
    query: Any = trial.rounds[-1]
    classes = family.classes(trial.tasks)  # type: ignore[attr-defined]
    label, true = query.target[0].unbind(-1)
    taken = classes.gather(1, query.action[0])
    wrong = query.action[0] != label
    pairs = Counter(zip(true[wrong].tolist(), taken[wrong].tolist(), strict=True))
    if not pairs:
        return ""
    stock = family.stock  # type: ignore[attr-defined]
    lines = []
    for (a, b), count in pairs.most_common(PAIRS):
        together = ((classes == a).any(1) & (classes == b).any(1)).sum() * (label[0] == 0).sum()
        drawn = (png(np.asarray(thumbnail(stock.pixels[c, 0] / 255))) for c in (a, b))
        named = zip(drawn, (escape(stock.names[c]) for c in (a, b)), strict=True)
        one, other = (f'<img alt="{name}" style="{INLINE}" src="{source}"> {name}' for source, name in named)
        lines.append(f"<li>{one} is taken for {other}: {count} of {int(together)} times</li>")
    words = (
        f"Of {wrong.numel():,} queries {int(wrong.sum()):,} are wrong. The pairs that are confused most, "
        "and how often, of all queries of the first that had the second to choose:"
    )
    return section("confusions", "Confusions", words, f"<ol>{''.join(lines)}</ol>")


# --- curves


def fits(m: Material) -> str:
    """Curves before and after adaptation."""
    family, agent, protocol = m.session.family, m.session.agent, m.session.experiment.evaluation
    with reseeded(m.session.rng, protocol.seed) as rng:
        tasks = evenly(family.sample_tasks(None, "test", rng), CURVES)
        support = run_trial(family, agent, tasks, protocol.rounds[:1], rng).rounds[0]
    low, high = (float(x) for x in (family.observation_space.low[0], family.observation_space.high[0]))
    x = torch.linspace(low, high, 200, device=family.device)
    asked = x.view(1, -1, 1).expand(len(tasks.ids), -1, -1)
    begun: Any = agent.begin(len(tasks.ids), protocol.rounds[0])
    before, after = (agent.predict(b, asked)[..., 0] for b in (begun, agent.adapt(begun, support)))  # type: ignore[attr-defined]
    true = family.curve(tasks.params[:, None], x)  # type: ignore[attr-defined]
    lines = [
        (y.detach().cpu().numpy(), *style)
        for y, *style in ((true, GREEN, 1), (before, PALE, 1), (after, BLUE, 1.6))
    ]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(-(-len(tasks.ids) // 3), 3, sharex=True, squeeze=False).flatten()
        for n, axes in enumerate(panels[: len(tasks.ids)]):
            for y, colour, width in lines:
                axes.plot(x.cpu(), y[n], color=colour, lw=width)
            axes.plot(
                support.obs[0, n, :, 0].cpu(), support.target[0, n, :, 0].cpu(), "o", color=ORANGE, ms=5
            )
            seen = np.concatenate([lines[0][0][n], support.target[0, n, :, 0].cpu()])
            margin = 0.2 * np.ptp(seen) + 0.1
            axes.set_ylim(seen.min() - margin, seen.max() + margin)

    words = (
        f"What the agent predicts in {plural(len(tasks.ids), 'test task')} before it has seen any (grey), "
        f"and after {protocol.rounds[0]} points (dots) in blue; the green line is the truth."
    )
    return section("fits", "Fits before and after adaptation", words, svg("fits", WIDTH, 420, draw))


# --- steps of adaptation


def steps(m: Material) -> str:
    """The return against the number of gradient steps; nothing where the agent takes none."""
    agent: Any = m.session.agent
    if not getattr(agent, "by_gradient", False):
        return ""
    family, protocol = m.session.family, m.session.experiment.evaluation
    trial = played(m, TASKS)
    x, y = agent.examples(trial)[-1]
    floor = family.bounds(trial.tasks).floor.cpu().numpy()
    told: dict[str, list[np.ndarray]] = {}
    for count in STEPS:
        belief = agent.begin(len(x), protocol.rounds[0])
        for rollout in trial.rounds[:-1]:
            belief = agent.adapt_by(belief, rollout, count)
        for name, held in {"": belief, **agent.variants(belief)}.items():
            told.setdefault(name, []).append(agent.earned(agent.predict(held, x), y).cpu().double().numpy())
    rows, lines = [], {}
    for name, scores in told.items():
        finite = [np.where(np.isfinite(s), s, floor) for s in scores]
        label = name or (f"{agent.config.batch_norm} batch norm" if len(told) > 1 else "mean")
        lines[label] = np.array([s.mean() for s in finite])
        intervals = [statistics.summary(s[None])["ci95"] for s in finite]
        rows.append([label, *(number(v, 3) for v in lines[label])])
        rows += [
            [f"95 %, {end}", *(number(x[i], 3) for x in intervals)] for i, end in ((0, "from"), (1, "to"))
        ]
        rows.append(["median", *(number(np.median(s), 3) for s in finite)])
        rows.append(["diverged tasks", *(f"{int((~np.isfinite(s)).sum())}" for s in scores)])
        if not name:
            lines["median"] = np.array([np.median(s) for s in finite])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        places = np.arange(len(STEPS))
        for (label, values), colour in zip(lines.items(), (BLUE, PALE, ORANGE), strict=False):
            axes.plot(places, values, "o-", color=colour, label=label, ms=4)
        axes.set_xticks(places, [str(s) for s in STEPS])
        axes.set_xlabel("gradient steps")
        axes.set_ylabel("return")
        axes.legend(frameon=False)

    words = (
        f"The return in {plural(len(x), 'test task')} after so many gradient steps on the support set; "
        f"training took {agent.config.inner_steps}. Diverged tasks count with their floor."
    )
    head = ["gradient steps", *map(str, STEPS)]
    return section(
        "steps", "Against gradient steps", words, svg("steps", WIDTH, 300, draw), table(head, rows)
    )
