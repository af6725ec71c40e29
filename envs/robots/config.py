"""A user's robot as a file: what its YAML says, checked key by key before anything is built."""

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from metarl import STRICT, ConfigError, checked, read_yaml, unknown

from .parameters import Parameter, Range
from .rewards import TERMS, AnyTerm
from .variations import Variation

SUFFIXES = (".yaml", ".yml")


def _one_line(name: str) -> str:
    if "=" in name or name.splitlines() != [name]:
        raise PydanticCustomError("name", "allowed: one line, without =, which stands in NAME=NUMBER")
    return name


Name = Annotated[str, AfterValidator(_one_line)]


@dataclass(frozen=True, config=STRICT)
class Servo:
    """Position servos in place of the model's motors: torque = kp (target - q) - kd q'."""

    kp: PositiveFloat
    """Stiffness, in N m/rad."""
    kd: NonNegativeFloat = 0.0
    """Damping, in N m s/rad."""
    range: PositiveFloat | None = None
    """How far from the start pose a target may be, in rad; none: the joint's whole range."""


@dataclass(frozen=True, config=STRICT)
class Start:
    """How an episode begins."""

    keyframe: str | None = None
    """The model's keyframe to begin in; none: its initial pose."""
    noise: NonNegativeFloat = 0.01
    """Half-width of the uniform noise on joints, in rad or m, and on velocities."""


@dataclass(frozen=True, config=STRICT)
class Terminate:
    """When an episode ends early: the robot has fallen."""

    height: Range | None = None
    """The root's heights at which it has not, in metres."""
    upright: Annotated[float, Field(ge=-1, lt=1)] | None = None
    """The least cosine between the root and how it stood at the start."""


@dataclass(frozen=True, config=STRICT)
class RobotConfig:
    """A robot, what differs between its tasks, what it feels, and what it is rewarded for."""

    name: Name
    """What the family is called."""
    model: str
    """MJCF: a file, relative to the YAML's folder, or PACKAGE:PATH in an installed package."""
    reward: Annotated[tuple[AnyTerm, ...], Field(min_length=1)]
    """Terms, each with its settings, that are added up."""
    vary: dict[Name, Variation] = field(default_factory=dict)
    """What differs between tasks, by the name of the task's number."""
    observe: Annotated[tuple[str, ...], Field(min_length=1)] = ("positions", "velocities")
    """positions, velocities, height, up, site:NAME, body:NAME, sensor:NAME."""
    summary: Annotated[str, Field(pattern=r"^[^\n]*$")] = ""
    """One line; none: made from the names of what differs."""
    timestep: PositiveFloat | None = None
    """Of the simulation, in seconds; none: the model's."""
    substeps: PositiveInt = 5
    """Simulation steps in a control step."""
    horizon: PositiveInt = 200
    """Control steps in an episode."""
    root: str | None = None
    """The body whose velocity, height and uprightness count; none: the first that moves."""
    gravity: tuple[float, float, float] | None = None
    """In m/s²; none: the model's."""
    floor: bool = False
    """Add a floor at height 0: many packages ship the bare robot."""
    servo: Servo | None = None
    """Position servos in place of the model's motors, which remain their limits."""
    action_range: Range | None = None
    """What an action from -1 to 1 means to actuators for which the model has no ctrlrange."""
    start: Start = Start()
    """How an episode begins."""
    terminate: Terminate = Terminate()
    """When an episode ends early."""
    test_tasks: PositiveInt = 40
    """Tasks in the test pool, and in the ood pool."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the two pools."""
    digest: str | None = field(default=None, compare=False)
    """Fingerprint of the compiled model, which a run keeps: a changed one is refused."""

    def parameters(self) -> tuple[Parameter, ...]:
        """The numbers of a task: the variations', then the reward's targets; ConfigError without any."""
        varied = [variation.parameter(name) for name, variation in self.vary.items()]
        targets = [p for term in self.reward for p in term.parameters() if isinstance(p, Parameter)]
        found = (*varied, *targets)
        names = [p.name for p in found]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"task parameter {name!r} is there twice; allowed: different names")
        if not found:
            raise ConfigError("vary is empty and no target is a range: all tasks would be the same")
        if not any(p.ood for p in found):
            raise ConfigError(f"ood is missing; allowed: a range beyond training for {' or '.join(names)}")
        return found


def robot_tree(source: str | Path | Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """The tree of a robot's YAML, or one that stands in another file, its model's path made absolute.

    A relative path is one from `folder`, the other file's, or else from the current one.
    """
    folder = folder or Path()
    if isinstance(source, Mapping):
        tree = dict(source)
    else:
        path = next((p for p in (folder / source, Path(source)) if p.is_file()), None)
        if path is None:
            raise ConfigError(f"family is {str(source)!r}, which is no file; allowed: a robot's YAML")
        tree, folder = read_yaml(path), path.parent
    model = tree.get("model")
    if isinstance(model, str) and "\0" in model:
        raise ConfigError(f"model is {model!r}, which is no file; allowed: an MJCF file")
    if isinstance(model, str) and not package_of(model):
        tree["model"] = str((folder / model).resolve())
    return tree


def is_robot(family: object) -> bool:
    """Whether what stands where a family's name may stand is a robot: its tree, or the path of its YAML."""
    return isinstance(family, Mapping) or str(family).endswith(SUFFIXES)


def robot_config(tree: Mapping[str, Any], prefix: str = "") -> RobotConfig:
    """The checked configuration; ConfigError, in one line, for whatever is missing, unknown or impossible.

    The error names a key after `prefix`, as "family." where the robot stands in an experiment.
    """
    parts: dict[str, Any] = {**tree}
    for key, kind in ("servo", Servo), ("start", Start), ("terminate", Terminate):
        if isinstance(parts.get(key), Mapping):
            parts[key] = checked(kind, parts[key], f"{prefix}{key}.")
    vary = parts.get("vary")
    if isinstance(vary, Mapping):
        parts["vary"] = {
            name: checked(Variation, v, f"{prefix}vary.{name}.") if isinstance(v, Mapping) else v
            for name, v in vary.items()
        }
    if isinstance(parts.get("reward"), list | tuple):
        parts["reward"] = [_term(term, prefix) for term in parts["reward"]]
    config = checked(RobotConfig, parts, prefix)
    config.parameters()  # or refuse
    return config


def _term(tree: Any, prefix: str) -> Any:
    """A term of the reward from its keys, which depend on which one it is."""
    if not isinstance(tree, Mapping) or "term" not in tree:
        raise ConfigError(
            f"{prefix}reward has {tree!r}; allowed: term: {' or '.join(TERMS)}, and its settings"
        )
    name = tree["term"]
    if not isinstance(name, str) or name not in TERMS:
        raise unknown("term of the reward", name, TERMS)
    return checked(TERMS[name], tree, f"{prefix}reward.{name}.")


def package_of(model: str) -> str | None:
    """The package in PACKAGE:PATH; a single letter is a drive's."""
    package, colon, _ = model.partition(":")
    return package if colon and len(package) > 1 else None
