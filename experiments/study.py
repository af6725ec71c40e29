"""Studies: one experiment from several seeds, each trained, resumed or skipped, and summed up in one file."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from metarl import SPLITS, ConfigError, RunError, statistics
from metarl.checkpoint import write_atomically
from metarl.envs import PicturesConfig, RobotConfig, make
from metarl.evaluation import shown, totals
from metarl.runs import Run

from . import config, training
from .cli import OK, Parser, guarded, split_settings
from .config import Experiment
from .progress import returns_by_round
from .report import versions
from .session import DETAILS

FLAGS = ("--seeds", "--out", "--name", "--results", "--help")  # all others are settings of the experiment
POINTS = 60  # of a learning curve
RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """python -m metarl.experiments.study EXPERIMENT --seeds 0 1 2 --out runs/STUDY [--key value ...]."""
    return guarded(_run, argv)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m metarl.experiments.study",
        description="Train an experiment from several seeds and write their common result; "
        "run it again to continue. Settings are changed by --key value, as in `metarl train`.",
        allow_abbrev=False,
    )
    parser.add_argument("experiment", help="a YAML file, or the name of a shipped experiment")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="one training each")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, seed_0, seed_1, ...")
    parser.add_argument("--name", help="name of the study (default: the experiment's)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where NAME.json goes")
    return parser


def _run(argv: list[str]) -> int:
    own, settings = split_settings(argv, FLAGS)
    a = _parser().parse_args(own)
    if "seed" in settings or len(set(a.seeds)) < len(a.seeds):
        raise ConfigError(f"seeds is {a.seeds}; allowed: different ones, given by --seeds alone")
    tree = config.override(config.read(a.experiment), settings)
    experiments = [config.build({**tree, "seed": seed}) for seed in a.seeds]
    runs = [trained(e, a.out / f"seed_{e.seed}") for e in experiments]
    name = a.name or Path(a.experiment).stem
    words = [a.experiment, "--seeds", *map(str, a.seeds), "--out", f"runs/{name}"]
    words += ["--name", name] if a.name else []
    words += [word for key, value in settings.items() for word in (f"--{key}", value)]
    command = shlex.join(["python", "-m", "metarl.experiments.study", *words])
    path = a.results / f"{name}.json"
    a.results.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(summary(experiments, runs) | {"command": command}, indent=1) + "\n")
    print(path)
    return OK


def trained(experiment: Experiment, folder: Path) -> Run:
    """The finished run of an experiment in a folder: new, continued, or as it is."""
    if not folder.exists():
        return training.start(experiment, folder)
    run = Run.open(folder)
    if config.build(config.read(run.config)) != experiment:
        raise RunError(f"{str(folder)!r} is a run with other settings; use another --out")
    return run if finished(run, experiment.iterations) else training.resume(folder, {})


def finished(run: Run, iterations: int) -> bool:
    """Whether a run has trained to its end and was then judged and reported, as this version does."""
    metrics = run.read_metrics()
    if not metrics or metrics[-1]["iteration"] + 1 < iterations or not run.report.exists():
        return False
    judged = all(DETAILS[-1] in run.evaluation(split).read_text(encoding="utf-8") for split in SPLITS[1:])
    return judged and run.report.stat().st_mtime_ns >= run.metrics.stat().st_mtime_ns


def summary(experiments: Sequence[Experiment], runs: Sequence[Run]) -> dict[str, Any]:
    """What the runs of a study have in common, their costs, and their scores over seeds and tasks."""
    experiment, metrics = experiments[0], [run.read_metrics() for run in runs]
    tree = config.to_tree(experiment)
    del tree["seed"]
    if isinstance(experiment.family, RobotConfig) and Path(experiment.family.model).is_absolute():
        tree["family"]["model"] = Path(experiment.family.model).name  # not where it was on this machine
    if isinstance(experiment.family, PicturesConfig):
        paths = {key: tree["family"][key] for key in ("pictures", "root") if tree["family"][key]}
        tree["family"] |= {key: Path(p).name for key, p in paths.items()}
    published = () if experiment.tell_task else make(experiment.family).published[:1]
    return {
        "family": experiment.family_name,
        "agent": experiment.agent.name,
        "experiment": experiment.description,
        "seeds": [e.seed for e in experiments],
        "settings": tree,
        "env_steps": [rows[-1]["env_steps"] for rows in metrics],
        "seconds": [rows[-1]["seconds"] for rows in metrics],
        "learning": learning(metrics),
        **scores(runs, "test"),
        **also(runs),
        "published": published[0]._asdict() if published else None,
        "ood": scores(runs, "ood"),
        "versions": versions(),
    }


def learning(metrics: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """How each seed learned, from its metrics: means over at most POINTS stretches of training, [S, P] each.

    The returns are those of trials of many rounds, all summed, or else of the last round.
    """
    total = "return_total" in metrics[0][0]
    what = "return_total" if total else f"return_{max(returns_by_round(metrics[0][0]))}"
    stretches = np.array_split(np.arange(len(metrics[0])), min(POINTS, len(metrics[0])))

    def means(key: str, digits: int) -> list[list[float]]:
        values = np.array([[m[key] for m in rows] for rows in metrics])
        return np.stack([values[:, part].mean(1) for part in stretches], 1).round(digits).tolist()

    told = {"env_steps": means("env_steps", 0), "seconds": means("seconds", 1), "returns": means(what, 4)}
    return {"what": "return of a trial" if total else "return of the last round", **told}


def also(runs: Sequence[Run]) -> dict[str, Any]:
    """Of the protocols besides, where there are some, the last round's statistics over seeds and tasks."""
    files = [run.evaluation("also") for run in runs]
    found = [json.loads(f.read_text()) for f in files if f.exists()]
    if not found:
        return {}
    told = {}
    for name, first in found[0].items():
        last = [f[name]["rounds"][-1] for f in found]
        means = [r["mean"] for r in last]
        variants = {v: mean(f[name]["controls"][v]["mean"] for f in found) for v in first["controls"]}
        over_seeds = len(means) > 1  # as everywhere
        ci95 = statistics.seed_interval(np.array(means)[:, None]) if over_seeds else last[0]["ci95"]
        told[name] = {
            "family": first["family"],
            "mean": mean(means),
            "ci95": list(ci95),
            "per_seed": means,
            "controls": variants,
        }
    return {"also": told}


def scores(runs: Sequence[Run], split: str) -> dict[str, Any]:
    """Statistics over seeds and tasks of rounds, controls and totals, beside floor, oracle and solvers.

    Of every round that a table shows, and of the total, there is each seed's mean, too.
    """
    found = [json.loads(run.evaluation(split).read_text()) for run in runs]
    rounds = np.array([f["scores"] for f in found]).swapaxes(0, 1)  # [R, S, N]
    told = shown(len(rounds))
    listed = statistics.summaries(rounds, told)
    for k in told:
        listed[k]["per_seed"] = rounds[k].mean(1).tolist()
    controls = {
        name: np.array([f["control_scores"][name] for f in found]) for name in found[0]["control_scores"]
    }
    total = rounds.sum(0)
    summed = {
        "unit": found[0]["unit"],
        "rounds": listed,
        "floor": found[0]["floor"],
        "oracle": found[0]["oracle"],
        "controls": {name: statistics.summary(s) for name, s in controls.items()},
        "total": {**statistics.summary(total), "per_seed": total.mean(1).tolist()},
        "totals": totals(rounds),
        "solvers": found[0]["solvers"],  # which learn nothing, and so are the same beside every seed
    }
    params = np.array(found[0]["params"])
    space = make(config.read(runs[0].config)["family"]).task_space
    if len(space) == 1 and not space[0].values:  # these can be drawn: every task's mean over seeds
        summed |= {"params": params[:, 0].tolist(), "per_task": rounds.mean(1).tolist()}
    return summed


if __name__ == "__main__":
    raise SystemExit(main())
