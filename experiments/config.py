"""Experiments as files: one typed tree, read from YAML, changed by --key value, checked as a whole."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, PlainSerializer, PositiveInt, TypeAdapter
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from metarl import STRICT, UNREADABLE, ConfigError, checked, device, read_yaml, unknown
from metarl.agents import AGENTS
from metarl.envs import (
    FAMILIES,
    PicturesConfig,
    RobotConfig,
    is_pictures,
    is_robot,
    pictures_config,
    pictures_tree,
    robot_config,
    robot_tree,
)
from metarl.evaluation import SHORT

TENSORBOARD = find_spec("tensorboardX") is not None
SHORTHAND = re.compile(r"\s*(\d{1,9})\s*[x×]\s*(\d{1,9})\s*")
MOST_ROUNDS = 100_000  # that a shorthand may stand for


def spelled_out(rounds: Any) -> Any:
    """The rounds of a shorthand: "500 x 1" are 500 rounds of one episode each; lists stay what they are."""
    if isinstance(rounds, list | tuple):
        return rounds
    found = SHORTHAND.fullmatch(rounds) if isinstance(rounds, str) else None
    count, episodes = map(int, found.groups()) if found else (0, 0)
    if not 1 <= count <= MOST_ROUNDS or episodes < 1:
        lists = "a list of numbers of episodes, as [20, 20]"
        short = f"ROUNDS x EPISODES, as 500 x 1, of up to {MOST_ROUNDS} rounds"
        raise PydanticCustomError("rounds", f"allowed: {lists}, or {short}")
    return (episodes,) * count


def shorthand(rounds: Sequence[int]) -> list[int] | str:
    """Rounds as they are written into files: in a shorthand where they are many and all the same."""
    same = len(rounds) > SHORT and len(set(rounds)) == 1
    return f"{len(rounds)} x {rounds[0]}" if same else [*rounds]


Seed = Annotated[int, Field(ge=0, lt=2**63)]
Episodes = Annotated[
    tuple[PositiveInt, ...],
    Field(min_length=1),
    BeforeValidator(spelled_out),
    PlainSerializer(shorthand),
]


@dataclass(frozen=True, config=STRICT)
class Protocol:
    """Another way in which the trained agent is judged, without learning from it."""

    rounds: Episodes
    """Episodes in each round."""
    family: str | None = None
    """Name of another family; none: the experiment's own."""


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """How the trained agent is judged."""

    rounds: Episodes = (20, 20, 20, 20)
    """Episodes in each round, with an adaptation between each two; a list, or as 500 x 1."""
    seed: Seed = 1
    """Seed of the evaluation, apart from the training's."""
    greedy_last: bool = False
    """Act without exploration in the last round."""
    also: dict[str, Protocol] = field(default_factory=dict)
    """Other rounds, and other families, in which the agent is judged besides, by what they are called."""


@dataclass(frozen=True, config=STRICT)
class AgentChoice:
    """An agent by its registered name, with its checked settings, an instance of its Config."""

    name: str
    settings: Any


@dataclass(frozen=True, config=STRICT)
class Experiment:
    """A family, an agent, and how the one is trained on the other."""

    family: str | RobotConfig | PicturesConfig
    """Name of the task family, or a robot of your own, the path of its YAML, or pictures of your own."""
    agent: AgentChoice
    """Name of the agent, and its settings."""
    tell_task: bool = False
    """Let observations tell the task, too: an oracle, not a learner that adapts."""
    description: str = ""
    """One line for `metarl list`."""
    seed: Seed = 0
    """Seed of the whole training."""
    initial: str | None = None
    """Folder of a run whose agent to begin with, as one of shorter trials; none: an untrained one."""
    device: str = "cpu"
    """Where everything runs: cpu or cuda."""
    iterations: PositiveInt = 100
    """Meta-updates."""
    meta_batch_size: PositiveInt = 20
    """Tasks in a meta-update."""
    rounds: Episodes = (20, 20)
    """Episodes of each task in each round of a training trial; a list, or as 500 x 1."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How the trained agent is judged."""
    checkpoint_every: PositiveInt = 10
    """Iterations between checkpoints."""
    tensorboard: bool | None = None
    """Write TensorBoard events, too; none: where tensorboardX is installed."""

    @property
    def family_name(self) -> str:
        """What the family is called, the user's own, too."""
        if isinstance(self.family, PicturesConfig):
            return self.family.family_name
        return self.family if isinstance(self.family, str) else self.family.name


def shipped() -> dict[str, Path]:
    """The experiments that come with the package, by name."""
    folder = Path(str(files("metarl.experiments"))) / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read(source: str | Path) -> dict[str, Any]:
    """The tree of a YAML file, or of the shipped experiment of that name."""
    path = Path(source)
    if not path.is_file():
        if str(source) not in shipped():
            raise ConfigError(f"{unknown('experiment', str(source), shipped())}; or the path of a YAML file")
        path = shipped()[str(source)]
    tree = read_yaml(path)
    if is_pictures(tree.get("family")):
        tree["family"] = pictures_tree(tree["family"], path.parent)
    elif is_robot(tree.get("family")):
        tree["family"] = robot_tree(tree["family"], path.parent)
    return tree


def override(tree: dict[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    """The tree with dotted keys replaced, as {"agent.inner_lr": "0.5"}; values are read as YAML."""
    tree = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    for key, text in changes.items():
        *sections, leaf = key.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"unknown key {key!r}: {section!r} has no keys of its own")
        try:
            branch[leaf] = yaml.safe_load(text)
        except UNREADABLE:
            raise ConfigError(f"{key} is {text!r}, which cannot be read as a value") from None
    return tree


def build(tree: Mapping[str, Any]) -> Experiment:
    """The checked experiment; ConfigError, in one line, for whatever is missing, unknown or not allowed."""
    agent = tree.get("agent")
    if "family" not in tree and {"model", "reward"} <= tree.keys():
        raise ConfigError("this is a robot, no experiment; allowed: an experiment with it under family:")
    if not isinstance(agent, dict) or "name" not in agent:
        raise ConfigError("agent.name is missing; allowed: " + ", ".join(AGENTS))
    name = agent["name"]
    if not isinstance(name, str) or name not in AGENTS:
        raise unknown("agent", name, AGENTS)
    settings = {key: value for key, value in agent.items() if key != "name"}
    parts = {**tree, "agent": AgentChoice(name, checked(AGENTS[name].Config, settings, "agent."))}
    if is_pictures(tree.get("family")):
        parts["family"] = pictures_config(tree["family"], "family.")
    elif is_robot(tree.get("family")):
        parts["family"] = robot_config(robot_tree(tree["family"]), "family.")
    elif not isinstance(tree.get("family", ""), str):
        names = ", ".join(sorted(FAMILIES))
        raise ConfigError(f"family is {tree['family']!r}; allowed: {names}, or a robot's YAML")
    experiment = checked(Experiment, parts, allowed=[key for key, _ in described(Experiment)])
    if isinstance(experiment.family, str) and experiment.family not in FAMILIES:
        raise unknown("family", experiment.family, FAMILIES)
    for name, protocol in experiment.evaluation.also.items():
        if protocol.family is not None and protocol.family not in FAMILIES:
            raise unknown(f"evaluation.also.{name}.family", protocol.family, FAMILIES)
    if experiment.tensorboard and not TENSORBOARD:
        raise ConfigError("tensorboard is True, but tensorboardX is missing: pip install tensorboardX")
    device.resolve(experiment.device)
    return experiment


def described(kind: type, prefix: str = "") -> list[tuple[str, str]]:
    """All dotted keys of a configuration class, each with its meaning and its default."""
    rows = []
    for name, info in kind.__pydantic_fields__.items():  # type: ignore[attr-defined]
        if info.annotation is AgentChoice:
            rows.append((f"{prefix}agent.name", info.description))
        elif hasattr(info.annotation, "__pydantic_fields__"):
            rows += described(info.annotation, f"{prefix}{name}.")
        else:
            value = None if info.is_required() else info.get_default(call_default_factory=True)
            default = "" if info.is_required() else f" [{json.dumps(value)}]"
            rows.append((prefix + name, f"{meaning(kind, name)}{default}"))
    return rows


def meaning(kind: type, name: str) -> str:
    """What a field's docstring says; an inherited field's stands in the class that it is from."""
    fields = (getattr(base, "__pydantic_fields__", {}).get(name) for base in kind.__mro__)
    return next((info.description for info in fields if info is not None and info.description), "")


def to_tree(experiment: Experiment) -> dict[str, Any]:
    """The experiment as plain values that `build` takes back."""
    tree: dict[str, Any] = TypeAdapter(Experiment).dump_python(experiment, mode="json")
    settings = experiment.agent.settings
    plain = TypeAdapter(type(settings)).dump_python(settings, mode="json")
    return {**tree, "agent": {"name": experiment.agent.name, **plain}}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree's leaves by dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return leaves


def to_yaml(experiment: Experiment) -> str:
    """The experiment as a file that `metarl train` takes."""
    return yaml.safe_dump(to_tree(experiment), sort_keys=False, allow_unicode=True)
