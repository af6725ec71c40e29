"""A run's report: one HTML file that explains itself, opens offline, and is the same for the same run."""

import json
import platform
import shlex
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path

from metarl import RunError, __version__
from metarl.checkpoint import write_atomically
from metarl.evaluation import CONTROLS, SHORT, shown, unit
from metarl.runs import Run

from . import adaptation, curves, page
from .beliefs import beliefs
from .by_task import by_parameter, per_task, plane
from .config import Experiment, build, flat, read, shipped, shorthand, to_tree
from .examples import examples
from .figures import legend, number, svg
from .material import Material
from .motion import motion
from .page import plural, section, table
from .progress import returns_by_round
from .session import Session

WIDTH = 960  # of the page's column, in pixels
TOTALS = ("iteration", "env_steps", "seconds")


def write_report(run: Run, session: Session) -> Path:
    """Write the report of a run that is trained and evaluated, and say where."""
    test, ood = (json.loads(run.evaluation(split).read_text(encoding="utf-8")) for split in ("test", "ood"))
    material = Material(run, session, test, ood, run.read_metrics())
    if not material.metrics:
        raise RunError(f"{run.metrics} is missing or empty: there is no training to report")
    title = f"{test['agent']} on {test['family']}"
    write_atomically(run.report, page.whole(title, filter(None, (part(material) for part in SECTIONS))))
    return run.report


# --- sections


def header(m: Material) -> str:
    """What was run, what came of it in one sentence, and how to run it again."""
    e, family = m.session.experiment, m.session.family
    protocol = e.evaluation
    facts = {
        "family": f"{family.name}: {family.summary}",
        "agent": m.test["agent"],
        "seed": f"{e.seed} (evaluation: {protocol.seed})",
        "protocol": f"{spoken(protocol.rounds)} episodes of each task, an adaptation between "
        f"each two rounds; {'no exploration in the last round' if protocol.greedy_last else 'all exploring'}",
        "trained with": f"{spoken(e.rounds)} episodes of {plural(e.meta_batch_size, 'task')} "
        f"in each of {plural(len(m.metrics), 'iteration')}",
        "report made with": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
    told = ", told its task" * e.tell_task
    listed = "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())
    return (
        f"<header>\n<h1>{escape(m.test['agent'])} on {escape(m.test['family'])}{told}</h1>\n"
        f'<p class="quiet">{escape(e.description)}</p>\n<p class="lead">{lead(m)}</p>\n<dl>{listed}'
        f"<dt>command</dt><dd><code>{escape(command(e))}</code></dd></dl>\n<details><summary>all settings "
        f"(run.yaml)</summary><pre>{escape(m.run.config.read_text(encoding='utf-8'))}</pre></details>\n</header>"
    )


def lead(m: Material) -> str:
    """The result in a few words: before and after, between floor and oracle, and in all of a long trial."""
    family, rounds, counted = m.session.family, m.test["rounds"], m.test["unit"]
    floor, oracle, total = (m.test[key] for key in ("floor", "oracle", "total"))
    in_all = (
        f" In all {len(rounds)} rounds together it earns <b>{number(total['mean'])}</b>, of "
        f"{number(oracle * len(rounds))}."
    )
    nothing = adaptation.doing_nothing(family)
    return (
        f"In {adaptation.tasks_in(family, m.test)} the mean return goes from "
        f"<b>{number(rounds[0]['mean'])}</b> {legend(0, counted)} to <b>{number(rounds[-1]['mean'])}</b> "
        f"{legend(len(rounds) - 1, counted)}. {nothing.capitalize()} earns {number(floor)} (the "
        f"floor); no agent can earn more than {number(oracle)}, even knowing the tasks (the oracle)."
        + in_all
        * (len(rounds) > SHORT)
    )


def adapting(m: Material) -> str:
    """The adaptation curve, and the same in numbers."""
    return adaptation.adaptation(m.session.family, m.test)


def also(m: Material) -> str:
    """The other protocols that the agent was judged under; nothing where there were none."""
    path = m.run.evaluation("also")
    if not m.session.experiment.evaluation.also or not path.exists():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for name, f in found.items():
        last = f["rounds"][-1]
        low, high = (number(x) for x in last["ci95"])
        rows.append([escape(name), f["family"], number(last["mean"]), f"{low} to {high}"])
        rows += [
            [f"{escape(name)}, {CONTROLS.get(c, c)}", "", number(r["mean"]), ""]
            for c, r in f["controls"].items()
        ]
    words = "The same agent under other protocols, without learning from them: the last round of each."
    return section("also", "Elsewhere", words, table(["protocol", "family", "return", "95 %"], rows))


def solvers(m: Material) -> str:
    """The reference solvers, where the family has some."""
    return adaptation.beside_solvers(m.test)


def learning(m: Material) -> str:
    """The learning curve, twice, and what the agent says of itself."""
    returns, rounds = returns_by_round(m.metrics[0]), m.session.experiment.rounds
    told = (k for k in shown(max(returns) + 1) if k in returns)
    lines = {f"return_{k}": legend(k, unit(m.session.agent, rounds)) for k in told}
    pictures = [svg("learning", WIDTH, 300, lambda f: curves.learning_curves(f, m.metrics, lines))]
    if "return_total" in m.metrics[0]:
        whole = {"return_total": f"all {len(rounds)} rounds together"}
        what = "total return"
        pictures.append(
            svg("learning_total", WIDTH, 260, lambda f: curves.learning_curves(f, m.metrics, whole, what))
        )
    names = [key for key in m.metrics[-1] if key not in TOTALS and not key.startswith("return_")]
    if names:
        height = 135 * -(-len(names) // 6)
        small = svg("diagnostics", WIDTH, height, lambda f: curves.diagnostics(f, m.metrics, names))
        pictures += ['<p class="quiet">The agent\'s own numbers, against iterations:</p>', small]
    return section(
        "learning",
        "Learning curve",
        "What the agent earns in training tasks as meta-training goes on, by experience (left) and by time "
        "(right): the gap between the lines is what adaptation is worth, and training should widen it.",
        *pictures,
    )


def costs(m: Material) -> str:
    """What training, adaptation and evaluation took."""
    e, last, horizon = m.session.experiment, m.metrics[-1], m.session.family.horizon
    iterations, adaptations = len(m.metrics), e.evaluation.rounds[:-1]
    episodes = sum(e.evaluation.rounds) * (m.test["tasks"] + m.ood["tasks"])
    each = spoken(adaptations) or "0"
    again = e.evaluation.rounds[-1] * sum(len(f["controls"]) * f["tasks"] for f in (m.test, m.ood))
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
        ("evaluation, the last round anew, with changed memory: episodes", number(again, 0)),
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


SECTIONS = (
    header,
    adapting,
    also,
    examples,
    solvers,
    learning,
    plane,
    moving,
    beliefs,
    by_parameter,
    per_task,
    costs,
)


# --- facts


def spoken(rounds: Sequence[int]) -> str:
    """The episodes of the rounds of a trial, as 20 + 20, or 500 x 1."""
    short = shorthand(rounds)
    return short if isinstance(short, str) else " + ".join(map(str, rounds))


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
