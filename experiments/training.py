"""Running an experiment: build, train with checkpoints, resume, evaluate, report."""

import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from metarl import SPLITS, RunError, Trial, train
from metarl.checkpoint import write_atomically
from metarl.runs import MetricsFile, Run

from .config import TENSORBOARD, Experiment, build, override, read, to_yaml
from .progress import Progress, TensorBoard
from .report import write_report
from .session import Session, assess, assess_also, begin

ADAPTABLE = ("iterations",)  # what a resumed run may change


class Interrupted(Exception):
    """The user asked to stop; everything is saved."""


def start(experiment: Experiment, out: Path, overwrite: bool = False) -> Run:
    """Train an experiment in a new run folder, then evaluate it and write its report."""
    session = Session(experiment)
    begin(session)
    run = Run.create(out, to_yaml(session.experiment), overwrite)
    return proceed(run, session)


def resume(folder: Path, changes: dict[str, str]) -> Run:
    """Continue a run from its newest readable checkpoint."""
    run = Run.open(folder)
    for key in changes:
        if key not in ADAPTABLE:
            raise RunError(f"a resumed run may change {', '.join(ADAPTABLE)} only, not {key}")
    session = Session(build(override(read(run.config), changes)))
    state = run.load(session.family.device, session.foreign)
    if state:
        session.restore(state)
        before, now = state["experiment"]["device"], session.experiment.device
        if before != now:
            raise RunError(f"device is {now!r}; allowed: {before!r}, on which the run was trained so far")
    else:
        begin(session)
    if session.iteration > session.experiment.iterations:
        wanted, done = session.experiment.iterations, session.iteration
        raise RunError(f"iterations is {wanted}; allowed: {done} or more, as many as the run has had")
    if changes:
        write_atomically(run.config, to_yaml(session.experiment))
    return proceed(run, session)


def proceed(run: Run, session: Session) -> Run:
    """Train from where the session stands to its last iteration, then evaluate and report."""
    learn(run, session)
    conclude(run, session)
    return run


def conclude(run: Run, session: Session) -> Path:
    """Evaluate on all tasks that training never saw, write the report, and say where it is."""
    for split in SPLITS[1:]:
        assess(run, session, split)
    assess_also(run, session)
    return write_report(run, session)


def learn(run: Run, session: Session) -> None:
    """The loop, with metrics, progress, checkpoints, and a clean stop on Ctrl-C."""
    e, family = session.experiment, session.family
    run.rewind(session.iteration)
    metrics_file = MetricsFile(run.metrics)
    wanted = TENSORBOARD if e.tensorboard is None else e.tensorboard
    board = TensorBoard(run.folder / "tensorboard", wanted, session.env_steps)
    before = time.perf_counter() - session.seconds

    def save() -> None:
        metrics_file.sync()
        run.save(session.iteration, session.state())

    def after(iteration: int, trial: Trial, metrics: dict[str, float]) -> None:
        session.iteration = iteration + 1
        session.env_steps += sum(int(r.valid.sum()) for r in trial.rounds)
        session.seconds = time.perf_counter() - before
        for name, value in metrics.items():
            if not math.isfinite(value):
                hint = (
                    "the agent diverged, and smaller steps may help, as agent.inner_lr or agent.learning_rate"
                )
                raise RunError(f"{name} is {value} in iteration {iteration}: {hint}")
        totals = {"env_steps": session.env_steps, "seconds": round(session.seconds, 3)}
        metrics_file.write({"iteration": iteration, **totals, **metrics})
        board.write(session.env_steps, metrics)
        progress.update(session.iteration, metrics)
        if session.iteration % e.checkpoint_every == 0 or session.iteration == e.iterations or stopping():
            save()
        if stopping():
            raise Interrupted(
                f"stopped after iteration {session.iteration}; metarl train --resume {run.folder}"
            )

    with interruptible() as stopping, Progress(e.iterations, session.iteration) as progress:
        try:
            history = train(
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
    if history and history[-1].get("gradient_steps") == 0:
        steps = session.env_steps
        print(
            f"metarl: nothing was learned: {steps} steps are fewer than agent.learning_starts",
            file=sys.stderr,
        )


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
