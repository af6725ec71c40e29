"""A session: what an experiment is made of, how far its training has come, and how it is judged."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Generator, nn

from metarl import (
    Adam,
    Agent,
    ConfigError,
    Evaluation,
    Family,
    Replay,
    RunError,
    Split,
    Tasks,
    device,
    evaluate,
)
from metarl.agents import AGENTS, FEW_SHOT
from metarl.checkpoint import write_atomically
from metarl.envs import Robot, Told, make
from metarl.runs import Run

from .config import Experiment, Protocol, build, flat, read, to_tree
from .solvers import solved

# what may differ between a checkpoint and its run: how long it trains, where, and what is seen of it
FREE = ("iterations", "evaluation", "description", "checkpoint_every", "tensorboard", "device")
# where a robot's model lies, whose fingerprint tells what it is, and where pictures do
MOVABLE = ("family.model", "family.pictures", "family.root")
COUNTS = ("updates", "played")  # of a training, as are the modules of these kinds
OF_TRAINING = (Adam, Replay)
DETAILS = ("params", "scores", "control_scores")  # what evaluation.json holds of each task


class Session:
    """A family, an agent and a generator, made from an experiment, and how far their training has come."""

    def __init__(self, experiment: Experiment) -> None:
        where = device.resolve(experiment.device)
        self.rng: Generator = device.generator(experiment.seed, where)
        self.family: Family = make(experiment.family, where)
        if isinstance(self.family, Robot):
            experiment = replace(experiment, family=self.family.config)  # with its model's fingerprint
        if experiment.tell_task:
            self.family = Told(self.family)
        self.experiment = experiment
        kind = AGENTS[experiment.agent.name]
        spaces = self.family.observation_space, self.family.action_space
        answers = getattr(self.family, "view", "") in ("pictures", "curve")
        if answers and experiment.agent.name not in FEW_SHOT:
            who, allowed = f"agent is {experiment.agent.name!r}", ", ".join(FEW_SHOT)
            raise ConfigError(f"{who}; allowed for {self.family.name}, which asks for answers: {allowed}")
        self.agent: Agent[Any] = kind(*spaces, self.rng, experiment.agent.settings)
        self.agent.check_rounds(experiment.rounds)
        if hasattr(self.agent, "unit"):  # whose memories live through a trial, whatever it is for
            self.agent.check_rounds(experiment.evaluation.rounds)
        if hasattr(self.agent, "check_pool"):
            self.agent.check_pool(self.pool())
        self.family.sample_tasks(experiment.meta_batch_size, "train", device.generator(0, where))  # or refuse
        self.iteration, self.env_steps, self.seconds = 0, 0, 0.0
        if experiment.agent.name in FEW_SHOT:
            for rounds in (experiment.rounds, experiment.evaluation.rounds):
                self.check(rounds)
            for protocol in experiment.evaluation.also.values():
                elsewhere(self, protocol)  # or refuse, before it trains

    def check(self, rounds: Sequence[int]) -> None:
        """Refuse rounds that the agent, or the examples of one test task, cannot be dealt in."""
        self.agent.check_rounds(rounds)
        deal, rng = getattr(self.family, "deal", None), device.generator(0, self.family.device)
        task = self.family.sample_tasks(1, "test", rng)
        for k, examples in enumerate(rounds):
            if deal:
                deal(task, examples, rng, sum(rounds[:k]))

    def pool(self) -> int:
        """How many training tasks there are; of a continuous distribution, how many are played at once."""
        try:
            whole = self.family.sample_tasks(None, "train", device.generator(0, self.family.device))
        except ConfigError:
            return self.experiment.meta_batch_size
        return len(whole.ids)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs to continue bit for bit."""
        return {
            "experiment": to_tree(self.experiment),
            "env_steps": self.env_steps,
            "seconds": self.seconds,
            "rng": self.rng.get_state(),
            "agent": self.agent.state_dict(),
        }

    def foreign(self, state: dict[str, Any]) -> str:
        """What shows that a state belongs to another experiment; nothing where it is ours."""
        if not {"iteration", *self.state()} <= state.keys():
            return "it is not one of a training"
        ours, theirs = flat(to_tree(self.experiment)), flat(state["experiment"])
        for key, value in theirs.items():
            if key.partition(".")[0] not in FREE and key not in MOVABLE and ours.get(key) != value:
                return f"{key} is {value!r}, the run's is {ours.get(key)!r}"
        return ""

    def restore(self, state: dict[str, Any]) -> None:
        """Take back a state that is not foreign."""
        self.agent.load_state_dict(state["agent"])
        self.iteration, self.env_steps = state["iteration"], state["env_steps"]
        self.seconds = state["seconds"]
        if state["experiment"]["device"].partition(":")[0] == self.family.device.type:
            self.rng.set_state(state["rng"].cpu())  # on another device it can be judged, not continued


def begin(session: Session) -> None:
    """Give an untrained agent what that of the experiment's `initial` run learned, where it names one.

    Not the optimiser's moments, not replay, and no counts: what anneals begins anew. ConfigError where the
    agents differ in kind or in size.
    """
    e, agent = session.experiment, session.agent
    if e.initial is None:
        return
    try:
        _, other = restored(Path(e.initial), e.device)
    except RunError as error:
        raise ConfigError(f"initial is {e.initial!r}; allowed: a trained run's folder ({error})") from None
    ours, theirs, name = agent.state_dict(), other.agent.state_dict(), other.experiment.agent.name
    modules = agent.named_modules() if isinstance(agent, nn.Module) else ()
    passing = tuple(f"{module}." for module, m in modules if isinstance(m, OF_TRAINING))
    learned = [k for k in ours if not k.startswith(passing) and k.rpartition(".")[2] not in COUNTS]
    fits = all(k in theirs and ours[k].shape == theirs[k].shape for k in learned)
    if name != e.agent.name or not fits:
        raise ConfigError(
            f"initial is {e.initial!r}, a run of {name!r}; allowed: one of {e.agent.name!r} with networks, "
            "observations and actions of the same sizes"
        )
    agent.load_state_dict({k: theirs[k] if k in learned else ours[k] for k in ours})


def restored(folder: Path, where: str | None = None) -> tuple[Run, Session]:
    """A run and its trained session, on its own device or on another; RunError where it has no checkpoint."""
    run = Run.open(folder)
    tree = read(run.config)
    session = Session(build({**tree, "device": where} if where else tree))
    state = run.load(session.family.device, session.foreign)
    if state is None:
        raise RunError(f"run folder {str(folder)!r} has no checkpoint yet: train it first")
    session.restore(state)
    if session.iteration < session.experiment.iterations:
        done = f"{session.iteration} of {session.experiment.iterations} iterations"
        print(f"metarl: {str(folder)!r} is not fully trained: {done}", file=sys.stderr)
    return run, session


def assess(run: Run, session: Session, split: Split) -> Evaluation:
    """Evaluate on a split's whole pool, beside its solvers, and keep the result in the run's folder."""
    found, e = judge(session, split), session.experiment
    solvers = solved(session.family, e.evaluation, split)
    content = {"agent": e.agent.name, **found.summary(), "solvers": solvers}
    controls = {name: scores.tolist() for name, scores in found.controls.items()}
    details = zip(DETAILS, (found.tasks.params.tolist(), found.scores.tolist(), controls), strict=True)
    write_atomically(run.evaluation(split), json.dumps({**content, **dict(details)}, allow_nan=False))
    return found


def assess_also(run: Run, session: Session) -> dict[str, Any]:
    """Evaluate under the protocols besides the experiment's own, and keep that in the run's folder, too."""
    also = session.experiment.evaluation.also
    found = {name: transferred(session, protocol).summary() for name, protocol in also.items()}
    if found:
        write_atomically(run.evaluation("also"), json.dumps(found, allow_nan=False))
    return found


def transferred(session: Session, protocol: Protocol) -> Evaluation:
    """Evaluate under another protocol; ConfigError where the agent cannot play another family."""
    variants = hasattr(session.agent, "variants")  # which are played with the controls
    return judge(elsewhere(session, protocol), controls=variants, rounds=protocol.rounds)


def elsewhere(session: Session, protocol: Protocol) -> Session:
    """The agent's session in a protocol's family, or its own; ConfigError where it cannot play there."""
    if protocol.family in (None, session.experiment.family_name):
        session.check(protocol.rounds)
        return session
    tree, rounds = to_tree(session.experiment), {"rounds": protocol.rounds}
    there = {"family": protocol.family, "device": str(session.family.device), **rounds}
    other = Session(build({**tree, **there, "evaluation": {**tree["evaluation"], "also": {}, **rounds}}))
    try:
        other.agent.load_state_dict(session.agent.state_dict())
    except RuntimeError:
        ours = session.experiment.family_name
        raise ConfigError(
            f"family is {protocol.family!r}; allowed: one whose inputs and answers are as those of {ours}"
        ) from None
    return other


def judge(
    session: Session,
    split: Split = "test",
    tasks: Tasks | None = None,
    controls: bool = True,
    rounds: Sequence[int] | None = None,
) -> Evaluation:
    """Evaluate under the experiment's protocol, from its own seed; in other rounds where some are given."""
    protocol = session.experiment.evaluation
    with reseeded(session.rng, protocol.seed) as rng:
        return evaluate(
            session.family,
            session.agent,
            rng,
            rounds=rounds or protocol.rounds,
            split=split,
            tasks=tasks,
            greedy_last=protocol.greedy_last,
            controls=controls,
        )


@contextmanager
def reseeded(rng: Generator, seed: int) -> Iterator[Generator]:
    """Draw from another seed for a while, so that evaluation never changes what training draws."""
    before = rng.get_state()
    try:
        yield rng.manual_seed(seed)
    finally:
        rng.set_state(before)
