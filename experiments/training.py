"""Running an experiment: build, train with checkpoints, resume, evaluate, report."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Generator

from metarl import Agent, Evaluation, Family, RunError, Split, Tasks, Trial, device, evaluate, train
from metarl.agents import AGENTS
from metarl.checkpoint import write_atomically
from metarl.envs import make
from metarl.runs import MetricsFile, Run

from .config import Experiment, agent_name, build, override, read, to_tree, to_yaml
from .progress import Progress, TensorBoard

DETAILS = ("params", "scores")  # what evaluation.json holds besides the summary
ADAPTABLE = ("iterations",)  # what a resumed run may change


class Interrupted(Exception):
    """The user asked to stop; everything is saved."""


class Session:
    """A family, an agent and a generator, made from an experiment, and how far their training has come."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        where = device.resolve(experiment.device)
        self.rng: Generator = device.generator(experiment.seed, where)
        self.family: Family = make(experiment.family, where)
        kind = AGENTS[agent_name(experiment)]
        spaces = self.family.observation_space, self.family.action_space
        self.agent: Agent[Any] = kind(*spaces, self.rng, experiment.agent)
        self.iteration, self.env_steps, self.seconds = 0, 0, 0.0

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs to continue bit for bit."""
        return {
            "experiment": to_tree(self.experiment),
            "env_steps": self.env_steps,
            "seconds": self.seconds,
            "rng": self.rng.get_state(),
            "agent": self.agent.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take back a state; RunError where it belongs to another experiment."""
        ours, theirs = to_tree(self.experiment), state["experiment"]
        for key in ("family", "seed"):
            if ours[key] != theirs[key]:
                raise RunError(f"the checkpoint's {key} is {theirs[key]!r}, the run's is {ours[key]!r}")
        for key in ours["agent"].keys() | theirs["agent"].keys():
            if ours["agent"].get(key) != theirs["agent"].get(key):
                raise RunError(
                    f"the checkpoint's agent.{key} is {theirs['agent'].get(key)!r}, "
                    f"the run's is {ours['agent'].get(key)!r}"
                )
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]
        self.seconds = state["seconds"]
        self.rng.set_state(state["rng"].cpu())
        self.agent.load_state_dict(state["agent"])


def start(experiment: Experiment, out: Path, overwrite: bool = False) -> Run:
    """Train an experiment in a new run folder, then evaluate it and write its report."""
    session = Session(experiment)
    run = Run.create(out, to_yaml(experiment), overwrite)
    return proceed(run, session)


def resume(folder: Path, changes: dict[str, str]) -> Run:
    """Continue a run from its newest readable checkpoint."""
    run = Run.open(folder)
    for key in changes:
        if key not in ADAPTABLE:
            raise RunError(f"a resumed run may change {', '.join(ADAPTABLE)} only, not {key}")
    session = Session(build(override(read(run.config), changes)))
    state = run.load(session.family.device)
    if state:
        session.restore(state)
    if changes:
        write_atomically(run.config, to_yaml(session.experiment))
    return proceed(run, session)


def restored(folder: Path) -> tuple[Run, Session]:
    """A run and its trained session; RunError where it has no checkpoint."""
    run = Run.open(folder)
    session = Session(build(read(run.config)))
    state = run.load(session.family.device)
    if state is None:
        raise RunError(f"run folder {str(folder)!r} has no checkpoint yet: train it first")
    session.restore(state)
    return run, session


def proceed(run: Run, session: Session) -> Run:
    """Train from where the session stands to its last iteration, then evaluate and report."""
    learn(run, session)
    for split in ("test", "ood"):
        assess(run, session, split)
    from .report import write_report  # matplotlib takes a second to import, and training needs none

    write_report(run, session)
    return run


def learn(run: Run, session: Session) -> None:
    """The loop, with metrics, progress, checkpoints, and a clean stop on Ctrl-C."""
    e, family = session.experiment, session.family
    run.rewind(session.iteration)
    metrics_file = MetricsFile(run.metrics)
    board = TensorBoard(run.folder / "tensorboard", e.tensorboard, session.iteration)
    before = time.perf_counter() - session.seconds

    def save() -> None:
        metrics_file.sync()
        run.save(session.iteration, session.state())

    def after(iteration: int, trial: Trial, metrics: dict[str, float]) -> None:
        session.iteration = iteration + 1
        session.env_steps += sum(int(r.valid.sum()) for r in trial.rounds)
        session.seconds = time.perf_counter() - before
        totals = {"env_steps": session.env_steps, "seconds": round(session.seconds, 3)}
        metrics_file.write({"iteration": iteration, **totals, **metrics})
        board.write(session.env_steps, metrics)
        progress.update(session.iteration, metrics)
        if session.iteration % e.checkpoint_every == 0 or session.iteration == e.iterations or stopping():
            save()
        if stopping() and session.iteration < e.iterations:
            raise Interrupted(
                f"stopped after iteration {session.iteration}; metarl train --resume {run.folder}"
            )

    with (
        interruptible() as stopping,
        Progress(e.iterations, session.iteration) as progress,
    ):
        try:
            train(
                family,
                session.agent,
                session.rng,
                iterations=e.iterations,
                rounds=e.rounds,
                meta_batch_size=e.meta_batch_size,
                start=session.iteration,
                after=after,
            )
        finally:
            metrics_file.close()
            board.close()


def assess(run: Run, session: Session, split: Split) -> Evaluation:
    """Evaluate on a split's whole pool, and keep the result in the run's folder."""
    found = judge(session, split)
    content = {"agent": agent_name(session.experiment), **found.summary()}
    details = dict(zip(DETAILS, (found.tasks.params.tolist(), found.scores.tolist()), strict=True))
    write_atomically(run.evaluation(split), json.dumps({**content, **details}))
    return found


def judge(session: Session, split: Split = "test", tasks: Tasks | None = None) -> Evaluation:
    """Evaluate under the experiment's protocol, from its own seed."""
    protocol = session.experiment.evaluation
    with reseeded(session.rng, protocol.seed) as rng:
        return evaluate(
            session.family,
            session.agent,
            rng,
            rounds=protocol.rounds,
            split=split,
            tasks=tasks,
            greedy_last=protocol.greedy_last,
        )


@contextmanager
def reseeded(rng: Generator, seed: int) -> Iterator[Generator]:
    """Draw from another seed for a while, so that evaluation never changes what training draws."""
    before = rng.get_state()
    try:
        yield rng.manual_seed(seed)
    finally:
        rng.set_state(before)


@contextmanager
def interruptible() -> Iterator[Any]:
    """Turn the first Ctrl-C into a question that the loop asks when it is ready; the second one kills."""
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
