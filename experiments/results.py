"""The results page: a row and a picture for each study in experiments/results/."""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from metarl.checkpoint import write_atomically
from metarl.envs import FAMILIES, make
from metarl.evaluation import CONTROLS, SHORT, shown

from . import pictures
from .cli import OK, Parser, guarded
from .config import build, to_tree
from .few_shot_table import is_pictures, tables
from .figures import number
from .page import markdown
from .pictures import Study, has_learned, seeds
from .solvers import shares
from .study import RESULTS

HOW_TO_READ = """\
# Results

Each row is a study: one experiment, meta-trained from several seeds, then evaluated in tasks that training
never saw, or in those of training where a family has no others, as its notes then say. The numbers under 0,
1, 2, ... are mean undiscounted returns after so many adaptations, or after so many episodes where a round is
a single one, over seeds and tasks; higher is better. Of trials of many rounds it is the *total* that counts:
the sum over all rounds of a trial.

In brackets stands the 95 % interval of the mean over trainings: Student's t from the means of the seeds,
which are listed with each study. The bootstrap row draws runs anew within each task (stratified), for these
very tasks; it takes a run's returns in different tasks as independent, and so is narrower. Of one seed
alone the tasks are drawn anew.

*Published* values are what the source named with each study reports on the same family under its own
protocol: something to hold the row against, not a paired comparison. The *floor* is what doing nothing
earns, or acting at random where there is no doing nothing; the *oracle* is a bound for all who know the task.
*Solvers* need no training, since they are told how tasks are drawn; they play the very tasks and rounds, and
the *total* beside theirs is the agent's.
*Another task's memory* and *memory wiped* are the last round played anew by an agent that remembers another
task, or nothing: how far it falls is what its memory of the task is worth. Environment steps and minutes are
those of a single training, the mean over seeds; minutes depend on the machine, and a study need not have had
it for itself. Pictures of training show each seed as a thin line, their mean and, shaded, its 95 % interval.
"""
EMPTY = """
There is no study here yet. One is made by

    python -m metarl.experiments.study quickstart --seeds 0 1 2 3 4 --out runs/quickstart
"""


def main(argv: Sequence[str] | None = None) -> int:
    """python -m metarl.experiments.results [--results DIR]."""
    return guarded(_run, argv)


def _run(argv: list[str]) -> int:
    parser = Parser(
        prog="python -m metarl.experiments.results",
        description="Write RESULTS.md beside a folder of studies, and a picture of each into it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the studies' files")
    print(write_results(parser.parse_args(argv).results))
    return OK


def write_results(folder: Path) -> Path:
    """Draw each study of a folder, and write the page about them all next to it."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted(folder.glob("*.json"), key=natural)
    studies = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    for name, study in studies.items():
        for file, drawn in pictures.of(name, study).items():
            write_atomically(folder / f"{file}.svg", drawn + "\n")
    few = {name: study for name, study in studies.items() if is_pictures(study)}
    long = {name: study for name, study in studies.items() if is_long(study)}
    short = {name: study for name, study in studies.items() if name not in {*few, *long}}
    parts = [HOW_TO_READ]
    for group, told in ((short, overview), (long, overview_of_long), (few, tables)):
        parts.append(told(group) if group else "")
    parts = [*filter(None, parts)] if studies else [HOW_TO_READ, EMPTY]
    parts += [detail(name, study, folder.name) for name, study in studies.items()]
    page = folder.parent / "RESULTS.md"
    write_atomically(page, "\n".join(parts))
    return page


def natural(path: Path) -> list[tuple[int, str]]:
    """By which files are in order: the numbers in their names as numbers, n10_k5 before n10_k50."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", path.stem)]


def is_long(study: Study) -> bool:
    """Whether there are so many rounds that the total is what counts."""
    return len(study["rounds"]) > SHORT


def overview(studies: Mapping[str, Study]) -> str:
    """The table of all studies of a few rounds, one row each."""
    steps = range(max(len(study["rounds"]) for study in studies.values()))
    head = ["study", "agent", "family", "seeds", *map(str, steps), "last, memory wiped", "published"]
    head += ["floor", "oracle", "env steps", "minutes"]
    lines = []
    for name, s in studies.items():
        means = [with_interval(s["rounds"][k]) if k < len(s["rounds"]) else "" for k in steps]
        wiped = number(s["controls"]["wiped"]["mean"]) if s.get("controls") else "not played"
        published = ", ".join(map(number, s["published"]["returns"])) if s["published"] else ""
        bounds = number(s["floor"]), number(s["oracle"])
        lines.append([*study_cells(name, s), *means, wiped, published, *bounds, *costs(s)])
    return markdown(head, lines)


def overview_of_long(studies: Mapping[str, Study]) -> str:
    """The studies of many rounds: for each set of solvers a table of totals, as in Duan et al. 2016."""
    groups = dict[tuple[str, ...], dict[str, Study]]()
    for name, s in studies.items():
        groups.setdefault(tuple(s["solvers"]), {})[name] = s
    return "\n".join(beside_solvers(solvers, group) for solvers, group in groups.items())


def beside_solvers(solvers: Sequence[str], studies: Mapping[str, Study]) -> str:
    """The totals of each study's agent and of its solvers, one row each."""
    head = ["study", "agent", "family", "seeds", "rounds", *solvers, "total"]
    head += [*(["agent / best solver"] if solvers else []), "floor", "oracle", "env steps", "minutes"]
    lines = []
    for name, s in studies.items():
        rounds, share = len(s["rounds"]), shares(s)[-1:] if solvers else []
        theirs = [number(s["solvers"][solver]["total"]["mean"]) for solver in solvers]
        bounds = number(rounds * s["floor"]), number(rounds * s["oracle"])
        total = with_interval(s["total"]), *share
        lines.append([*study_cells(name, s), str(rounds), *theirs, *total, *bounds, *costs(s)])
    return markdown(head, lines)


def study_cells(name: str, study: Study) -> list[str]:
    """What a row is about."""
    told = ", told its task" * study["settings"].get("tell_task", False)
    return [f"[{name}](#{anchor(name)})", study["agent"] + told, study["family"], str(len(study["seeds"]))]


def costs(study: Study) -> list[str]:
    """Environment steps and minutes of a training."""
    return [number(mean(study["env_steps"]), 0), number(mean(study["seconds"]) / 60, 1)]


def detail(name: str, study: Study, folder: str) -> str:
    """One study: its pictures, its numbers, where they are from, and its command."""
    unit = study.get("unit", "adaptations")
    parts = [
        f"## {name}\n",
        f"{study['experiment']}\n",
        "" if is_pictures(study) else f"![Return of each round, {seeds(study)}]({folder}/{name}.svg)\n",
        f"![Return by task]({folder}/{name}_by_task.svg)\n" if "per_task" in study else "",
        f"![Training returns]({folder}/{name}_learning.svg)\n" if has_learned(study) else "",
        markdown([unit, *map(str, shown(len(study["rounds"])))], rows(study)),
        f"![Beside the solvers]({folder}/{name}_solvers.svg)\n" if study.get("solvers") else "",
        elsewhere(study),
        totals(study) if is_long(study) or study.get("solvers") else "",
        f"{notes(study)}\n",
        f"    {study['command']}\n",
    ]
    return "\n".join(filter(None, parts))


def rows(study: Study) -> list[list[str]]:
    """The numbers of a study, a column a round; of many rounds some."""
    told, known = shown(len(study["rounds"])), study["published"]
    rounds = [study["rounds"][k] for k in told]
    found = [
        ["mean", *map(with_interval, rounds)],
        ["mean, stratified bootstrap", *(with_interval(r, "mean", "bootstrap95") for r in rounds)],
        ["IQM, stratified bootstrap", *(with_interval(r, "iqm", "iqm_ci95") for r in rounds)],
        ["worst 5 % of the tasks", *(number(r["cvar5"]) for r in rounds)],
    ]
    for i, seed in enumerate(study["seeds"]):
        found.append([f"mean of seed {seed}", *(number(r["per_seed"][i]) for r in rounds)])
    blank = [""] * (len(told) - 1)
    for control, r in study.get("controls", {}).items():
        found.append([f"mean with {CONTROLS.get(control, control)}", *blank, with_interval(r)])
    if not shared(study):
        beyond = (with_interval(study["ood"]["rounds"][k]) for k in told)
        found.append(["mean beyond the trained range", *beyond])
    if known:
        values = (number(known["returns"][k]) if k < len(known["returns"]) else "" for k in told)
        found.append([f"{known['name']}, published", *values])
    return found


def elsewhere(study: Study) -> str:
    """The last round under the other protocols that the agent was judged by; nothing where there are none."""
    also = study.get("also", {})
    seeds = [f"seed {seed}" for seed in study["seeds"]]
    found = []
    for name, r in also.items():
        found.append([name, r["family"], with_interval(r), *map(number, r["per_seed"])])
    return markdown(["other protocol", "family", "last round", *seeds], found) if found else ""


def totals(study: Study) -> str:
    """What the agent and each solver earn in the first so many rounds of a trial, and in all."""
    columns, solvers = study["totals"], study["solvers"]
    found = [[study["agent"], *map(with_interval, columns)]]
    for i, seed in enumerate(study["seeds"]):
        found.append([f"seed {seed}", *[""] * (len(columns) - 1), number(study["total"]["per_seed"][i])])
    order = sorted(solvers, key=lambda name: -solvers[name]["total"]["mean"])
    found += [[name, *map(with_interval, solvers[name]["totals"])] for name in order]
    found += [["agent / best solver", *shares(study)]] if solvers else []
    if not shared(study):
        found.append(["agent, beyond the trained range", *map(with_interval, study["ood"]["totals"])])
    found += [[key, *(number(study[key] * r["rounds"]) for r in columns)] for key in ("floor", "oracle")]
    return markdown(["total of the first rounds", *(number(r["rounds"], 0) for r in columns)], found)


def notes(study: Study) -> str:
    """Floor and oracle, the source of the published values, and what the study was made with."""
    beyond, known = study["ood"], study["published"]
    tasks = "The tasks are those of training, as there are no others" if shared(study) else "Unseen tasks"
    found = [f"{tasks}: floor {number(study['floor'])}, oracle {number(study['oracle'])}"]
    if not shared(study):
        bounds = f"floor {number(beyond['floor'])}, oracle {number(beyond['oracle'])}"
        found.append(f"Beyond the trained range: {bounds}")
    found.append("Made with " + ", ".join(f"{key} {value}" for key, value in study["versions"].items()))
    found.append("Settings other than the agent's defaults: " + changed(study["settings"]["agent"]))
    found += [f"Published values: {known['source']}"] if known else []
    return ". ".join(found) + "."


def shared(study: Study) -> bool:
    """Whether the family has so few tasks that those of training are evaluated."""
    return make(study["settings"]["family"]).shared_splits


def changed(agent: Mapping[str, Any]) -> str:
    """The agent's settings that are not its defaults."""
    default = to_tree(build({"family": next(iter(FAMILIES)), "agent": {"name": agent["name"]}}))["agent"]
    return ", ".join(f"{k} {json.dumps(v)}" for k, v in agent.items() if v != default.get(k)) or "none"


def with_interval(r: Mapping[str, Any], value: str = "mean", interval: str = "ci95") -> str:
    """A statistic and its interval."""
    low, high = r[interval]
    return f"{number(r[value])} [{number(low)}, {number(high)}]"


def anchor(heading: str) -> str:
    """The address of a heading, as Markdown viewers make it."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")


if __name__ == "__main__":
    raise SystemExit(main())
