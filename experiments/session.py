"""A session: what an experiment is made of, how far its training has come, and how it is judged."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Generator

from metarl import Agent, Evaluation, Family, RunError, Split, Tasks, device, evaluate
from metarl.agents import AGENTS
from metarl.checkpoint import write_atomically
from metarl.envs import make
from metarl.runs import Run

from .config import Experiment, agent_name, build, read, to_tree

DETAILS = ("params", "scores")  # what evaluation.json holds besides the summary


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
        self.agent.check_rounds(experiment.rounds)
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
        for key, value in theirs["agent"].items():  # a setting that is newer than the checkpoint is not there
            if ours["agent"].get(key) != value:
                raise RunError(
                    f"the checkpoint's agent.{key} is {value!r}, the run's is {ours['agent'].get(key)!r}"
                )
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]
        self.seconds = state["seconds"]
        self.rng.set_state(state["rng"].cpu())
        self.agent.load_state_dict(state["agent"])


def restored(folder: Path) -> tuple[Run, Session]:
    """A run and its trained session; RunError where it has no checkpoint."""
    run = Run.open(folder)
    session = Session(build(read(run.config)))
    state = run.load(session.family.device)
    if state is None:
        raise RunError(f"run folder {str(folder)!r} has no checkpoint yet: train it first")
    session.restore(state)
    return run, session


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
