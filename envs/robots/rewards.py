"""What a user's robot is rewarded for: a small set of terms, each a formula of one moment."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from metarl import STRICT, ConfigError

from .parameters import Interval, Parameter, Range, Ranges, Target

AXES = "xyz"


class Moment(NamedTuple):
    """What the terms see of all robots after a step."""

    forward: Tensor  # [N, E], velocity of the root along the world's x axis, mean over the step, in m/s
    upright: Tensor  # [N, E], cosine of the angle between the root and how it stood at the start
    action: Tensor  # [N, E, A], as it was carried out, in [-1, 1]
    sites: Mapping[str, Tensor]  # [N, E, 3], where they are, in metres


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Term(ABC):
    """A part of the reward; its weight times its value is added up."""

    weight: PositiveFloat = 1.0
    """How many times it counts."""

    highest = 0.0
    """What no value of it passes; infinite where only friction limits it."""

    def parameters(self) -> tuple[Parameter | float, ...]:
        """Its targets, each fixed or a number of the task."""
        return ()

    @abstractmethod
    def value(self, now: Moment, target: Tensor) -> Tensor:
        """Its value, [N, E], with targets [N, 1, number of them]."""

    @property
    def needs(self) -> str | None:
        """The site that it looks at."""
        return None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ForwardVelocity(Term):
    """v, or min(v, cap)."""

    term: Literal["forward_velocity"] = "forward_velocity"
    """Which."""
    cap: PositiveFloat | None = None
    """The velocity beyond which more is worth nothing, in m/s."""

    @property
    def highest(self) -> float:  # type: ignore[override]
        """The cap."""
        return float("inf") if self.cap is None else self.cap

    def value(self, now: Moment, target: Tensor) -> Tensor:
        """[N, E]."""
        return now.forward if self.cap is None else now.forward.clamp(max=self.cap)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TargetVelocity(Term):
    """-|v - target|."""

    term: Literal["target_velocity"] = "target_velocity"
    """Which."""
    target: Target
    """A velocity in m/s, or the range from which each task has its own."""
    test: Range | None = None
    """The range of the test pool; none: as in training."""
    ood: Ranges = ()
    """Ranges beyond training; none: as in training."""

    def parameters(self) -> tuple[Parameter | float, ...]:
        """The velocity."""
        key = "reward.target_velocity"
        return (_target("velocity", key, "m/s", self.target, self.test, self.ood),)

    def value(self, now: Moment, target: Tensor) -> Tensor:
        """[N, E]."""
        return -(now.forward - target[..., 0]).abs()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Reach(Term):
    """-‖site - target‖."""

    term: Literal["reach"] = "reach"
    """Which."""
    site: str
    """The site that has to get there."""
    target: tuple[Target, Target, Target]
    """x, y and z of a place in the world, in metres, each a number or the range that tasks differ in."""
    test: tuple[Range | None, Range | None, Range | None] = (None, None, None)
    """The ranges of the test pool; none: as in training."""
    ood: tuple[Ranges | None, Ranges | None, Ranges | None] = (None, None, None)
    """Ranges beyond training; none: as in training."""

    def parameters(self) -> tuple[Parameter | float, ...]:
        """x, y and z."""
        axes = zip(AXES, self.target, self.test, self.ood, strict=True)
        return tuple(
            _target(f"goal_{axis}", f"reward.reach.{axis}", "m", place, test, ood or ())
            for axis, place, test, ood in axes
        )

    def value(self, now: Moment, target: Tensor) -> Tensor:
        """[N, E]."""
        return -(now.sites[self.site] - target).norm(dim=-1)

    @property
    def needs(self) -> str | None:
        """The site."""
        return self.site


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Upright(Term):
    """The cosine of the angle between the root and how it stood at the start: 1 upright, -1 upside down."""

    term: Literal["upright"] = "upright"
    """Which."""
    highest = 1.0

    def value(self, now: Moment, target: Tensor) -> Tensor:
        """[N, E]."""
        return now.upright


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Alive(Term):
    """1 a step, for as long as the episode goes on."""

    term: Literal["alive"] = "alive"
    """Which."""
    highest = 1.0

    def value(self, now: Moment, target: Tensor) -> Tensor:
        """[N, E]."""
        return now.forward.new_ones(now.forward.shape)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ControlCost(Term):
    """-‖action‖², of the action as it was carried out, in [-1, 1]."""

    term: Literal["control_cost"] = "control_cost"
    """Which."""
    weight: Annotated[float, Field(gt=0)] = 0.01
    """How many times it counts."""

    def value(self, now: Moment, target: Tensor) -> Tensor:
        """[N, E]."""
        return -now.action.square().sum(-1)


AnyTerm = Annotated[
    ForwardVelocity | TargetVelocity | Reach | Upright | Alive | ControlCost, Field(discriminator="term")
]
TERMS: dict[str, type[Term]] = {kind.term: kind for kind in get_args(get_args(AnyTerm)[0])}


def _target(
    name: str, key: str, unit: str, target: Interval, test: Interval | None, ood: tuple[Interval, ...]
) -> Parameter | float:
    if target[0] == target[1]:
        for part, ranges in ("test", test), ("ood", ood):
            if ranges:
                raise ConfigError(f"{key}.{part} is {ranges}, but the target is {target[0]:g}; allowed: none")
        return target[0]
    found = Parameter(name, key, unit, target, test or target, ood)
    found.check(float("-inf"))
    return found
