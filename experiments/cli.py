"""The command line: metarl train, evaluate, adapt, render, report, list."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from metarl import UNREADABLE, ConfigError, MetarlError, __version__, checked, unknown
from metarl.agents import AGENTS, SOLVERS
from metarl.envs import FAMILIES, named_tasks

from . import config, training
from .render import check_out, film
from .session import DETAILS, Session, assess, judge, restored, transferred
from .solvers import played_by
from .tables import adaptation_table, adapted_task, evaluation_tables

TRAIN_FLAGS = ("--out", "--overwrite", "--resume", "--help")  # all others are settings of the experiment
OK, BAD, STOPPED = 0, 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> Any:
        """Say what is wrong and leave with status 2."""
        raise ConfigError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command."""
    return guarded(_run, argv)


def guarded(run: Callable[[list[str]], int], argv: Sequence[str] | None) -> int:
    """Run with the arguments; 0 is success, 2 bad input, 130 an interruption, each said in one line."""
    try:
        return run(list(sys.argv[1:] if argv is None else argv))
    except training.Interrupted as stop:
        return _say(str(stop), STOPPED)
    except KeyboardInterrupt:
        return _say("interrupted; a run continues with: metarl train --resume RUN", STOPPED)
    except MetarlError as error:
        return _say(f"error: {error}", BAD)
    except (MemoryError, RuntimeError) as error:
        full = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not full and "allocate memory" not in str(error):
            raise
        what = "meta_batch_size, rounds, agent.hidden or agent.replay_capacity"
        return _say(f"error: out of memory; a smaller {what} may help", BAD)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left
        return OK
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _say(f"error: {error.strerror or error}{where}; what was written before is intact", BAD)


def _say(message: str, status: int) -> int:
    print(f"metarl: {' '.join(message.split())}", file=sys.stderr)
    return status


def _run(argv: list[str]) -> int:
    parser = _parser()
    if not argv:
        parser.print_help()
        return OK
    settings = dict[str, str]()
    if argv[0] == "train":
        argv, settings = split_settings(argv)
    arguments = parser.parse_args(argv)
    arguments.settings = settings
    arguments.act(arguments)
    return OK


def _parser() -> Parser:
    parser = Parser(
        prog="metarl", description="Agents that learn to adapt: train, evaluate, adapt, render, report."
    )
    parser.add_argument("--version", action="version", version=f"metarl {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    train = commands.add_parser(
        "train",
        help="meta-train an experiment, evaluate it and write its report",
        epilog=_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    train.add_argument("experiment", nargs="?", help="a YAML file, or the name of a shipped experiment")
    train.add_argument("--out", type=Path, help="run folder (default: runs/EXPERIMENT)")
    train.add_argument("--overwrite", action="store_true", help="replace the run that is in the folder")
    train.add_argument("--resume", type=Path, metavar="RUN", help="continue a run from its last checkpoint")
    train.set_defaults(act=_train)

    evaluate = commands.add_parser("evaluate", help="the adaptation curve on unseen tasks")
    evaluate.add_argument("run", type=Path, help="a run folder")
    evaluate.add_argument("--split", choices=("test", "ood"), default="test", help="default: test")
    evaluate.add_argument("--family", help="another family, which the agent has not learned from")
    evaluate.add_argument("--rounds", help="other rounds, as [5, 75], or 500 x 1")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    evaluate.set_defaults(act=_evaluate)

    adapt = commands.add_parser("adapt", help="adapt to one given task and show it")
    adapt.add_argument("run", type=Path, help="a run folder")
    adapt.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    adapt.set_defaults(act=_adapt)

    render = commands.add_parser(
        "render", help="film an episode before and one after adapting to a given task"
    )
    render.add_argument("run", type=Path, help="a run folder")
    render.add_argument("--out", type=Path, required=True, help="the film: a name that ends in .mp4 or .gif")
    render.add_argument("--width", type=int, default=480, help="pixels of each of the two pictures (480)")
    render.add_argument("--height", type=int, default=360, help="pixels of each of the two pictures (360)")
    render.add_argument("--fps", type=float, default=50, help="at most so many pictures a second (50)")
    render.set_defaults(act=_render)

    for command in (adapt, render):
        command.add_argument(
            "--task", action="append", required=True, metavar="NAME=VALUE", help="a task parameter; repeat it"
        )

    report = commands.add_parser("report", help="write the run's HTML report anew")
    report.add_argument("run", type=Path, help="a run folder")
    report.set_defaults(act=_report)

    for command in (evaluate, adapt, render, report):
        command.add_argument("--device", help="cpu or cuda (default: the run's own)")

    listing = commands.add_parser("list", help="families, agents and experiments, a line each")
    listing.add_argument("--json", action="store_true", help="print one JSON object instead")
    listing.set_defaults(act=_list)
    return parser


def _settings() -> str:
    """What --key value can change, with what each means."""
    groups: list[tuple[str, type, str]] = [
        ("any setting of the experiment, as --key value:", config.Experiment, "")
    ]
    groups += [(f"with agent.name {name}:", kind.Config, "agent.") for name, kind in AGENTS.items()]
    lines = []
    for title, kind, prefix in groups:
        lines.append(f"\n{title}")
        lines += [f"  --{key:28} {text}" for key, text in config.described(kind, prefix)]
    return "\n".join(lines).lstrip()


def split_settings(
    argv: Sequence[str], flags: Sequence[str] = TRAIN_FLAGS
) -> tuple[list[str], dict[str, str]]:
    """Take the experiment's settings out of the arguments of `train`, or of a command with other flags.

    ["train", "x", "--a.b", "1", "--out", "y"] becomes ["train", "x", "--out", "y"] and {"a.b": "1"}.
    """
    own, settings, waiting = list[str](), dict[str, str](), list(argv)
    while waiting:
        word = waiting.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("--") or flag in flags:
            own.append(word)
            continue
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise ConfigError(f"{flag} needs a value: {flag} VALUE")
            value = waiting.pop(0)
        settings[flag[2:]] = value
    return own, settings


def _train(a: argparse.Namespace) -> None:
    if a.resume:
        if a.experiment or a.out or a.overwrite:
            raise ConfigError("--resume takes the run's own experiment and folder: give neither")
        run = training.resume(a.resume, a.settings)
    else:
        if not a.experiment:
            raise ConfigError(
                f"experiment is missing; allowed: {', '.join(config.shipped())}, or a YAML file"
            )
        experiment = config.build(config.override(config.read(a.experiment), a.settings))
        out = a.out or Path("runs") / Path(a.experiment).stem
        run = training.start(experiment, out, a.overwrite)
    Console().print(*evaluation_tables(run, "test"))
    print(f"report: {run.report}")


def _evaluate(a: argparse.Namespace) -> None:
    run, session = restored(a.run, a.device)
    if a.family or a.rounds:
        _transfer(a, session)
        return
    assess(run, session, a.split)
    if a.json:
        found = json.loads(run.evaluation(a.split).read_text(encoding="utf-8"))
        print(json.dumps({k: v for k, v in found.items() if k not in DETAILS}))
    else:
        Console().print(*evaluation_tables(run, a.split))


def _transfer(a: argparse.Namespace, session: Session) -> None:
    """Evaluate in another family or other rounds; nothing is kept in the run's folder."""
    if a.split != "test":
        raise ConfigError(f"split is {a.split!r}; allowed with --family or --rounds: 'test'")
    try:
        given = {"family": a.family, "rounds": yaml.safe_load(a.rounds) if a.rounds else None}
    except UNREADABLE:
        raise ConfigError(f"rounds is {a.rounds!r}, which cannot be read as a value") from None
    tree = {"rounds": session.experiment.evaluation.rounds} | {
        k: v for k, v in given.items() if v is not None
    }
    protocol = checked(config.Protocol, tree, "")
    if protocol.family is not None and protocol.family not in FAMILIES:
        raise unknown("family", protocol.family, FAMILIES)
    found = {"agent": session.experiment.agent.name, **transferred(session, protocol).summary()}
    if a.json:
        print(json.dumps(found))
    else:
        Console().print(adaptation_table(found))


def _adapt(a: argparse.Namespace) -> None:
    _, session = restored(a.run, a.device)
    values = _task(a.task)
    found = judge(session, tasks=named_tasks(session.family, [values]))
    if a.json:
        print(json.dumps({"task": values, **found.summary()}))
    else:
        Console().print(adapted_task(session.family, values, found))


def _task(texts: Sequence[str]) -> dict[str, float]:
    """["goal_x=0.3", "goal_y=0"] as numbers by name."""
    values = dict[str, float]()
    for text in texts:
        name, _, value = text.partition("=")
        if name in values:
            raise ConfigError(f"task parameter {name!r} is given twice")
        try:
            values[name] = float(value)
        except ValueError:
            raise ConfigError(f"task is {text!r}; allowed: NAME=NUMBER") from None
    return values


def _render(a: argparse.Namespace) -> None:
    check_out(a.out)
    _, session = restored(a.run, a.device)
    film(session, _task(a.task), a.out, a.width, a.height, a.fps)
    print(a.out)


def _report(a: argparse.Namespace) -> None:
    run, session = restored(a.run, a.device)
    print(training.conclude(run, session))  # evaluated anew: the agent may have learned since


def _list(a: argparse.Namespace) -> None:
    found: dict[str, dict[str, Any]] = {
        "families": {name: family.summary for name, family in FAMILIES.items()},
        "agents": {name: _first_line(agent) for name, agent in AGENTS.items()},
        "solvers": {
            name: {"summary": _first_line(solver), "families": played_by(name)}
            for name, solver in SOLVERS.items()
        },
        "experiments": {name: config.read(name).get("description", "") for name in config.shipped()},
    }
    if a.json:
        print(json.dumps(found))
        return
    titles = {"solvers": "reference solvers"}
    for title, entries in found.items():
        table = Table(
            title=titles.get(title, title), title_justify="left", show_header=False, box=None, padding=(0, 2)
        )
        for name, line in entries.items():
            if not isinstance(line, str):
                kinds = sorted({family.partition("/")[0] for family in line["families"]})
                line = f"{line['summary']} For {', '.join(kinds)}."
            table.add_row(name, escape(line))  # what stands in brackets is no markup
        Console().print(table)


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").partition("\n")[0]
