"""What differs between the tasks of a user's robot: numbers with a range for training, test and ood."""

from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from metarl import ConfigError, TaskParameter

Interval = tuple[float, float]


def _ordered(interval: Interval) -> Interval:
    if not interval[0] < interval[1]:
        raise PydanticCustomError("range", "allowed: two numbers, low < high")
    return interval


def _as_ranges(value: Any) -> Any:
    """One range as the only one of a list of them."""
    one = isinstance(value, list | tuple) and value and isinstance(value[0], int | float)
    return [value] if one else value


def _as_interval(value: Any) -> Any:
    """A number as the interval that holds nothing else."""
    return (value, value) if isinstance(value, int | float) else value


def _not_empty(interval: Interval) -> Interval:
    if interval[0] > interval[1]:
        raise PydanticCustomError("range", "allowed: a number, or two with low < high")
    return interval


Range = Annotated[Interval, AfterValidator(_ordered)]
Ranges = Annotated[tuple[Range, ...], BeforeValidator(_as_ranges)]  # one range, or a list of them
Target = Annotated[Interval, BeforeValidator(_as_interval), AfterValidator(_not_empty)]  # fixed, or a range


class Parameter(NamedTuple):
    """One number of a task, where its key stands in the robot's YAML, and how it is drawn."""

    name: str
    key: str
    unit: str
    range: Interval
    test: Interval
    ood: tuple[Interval, ...]  # empty: as in training
    log: bool = False  # uniform in its logarithm
    default: float | None = None

    def check(self, lowest: float, inclusive: bool = True) -> None:
        """ConfigError where a range is impossible: too low, without a logarithm, or ood within training."""
        inclusive = inclusive and not (self.log and lowest == 0)
        for part, (low, high) in self._ranges():
            if low < lowest or (low == lowest and not inclusive):
                allowed = f"{lowest:g} or more" if inclusive else f"above {lowest:g}"
                raise ConfigError(f"{self.key}.{part} is {[low, high]}; allowed: {allowed}")
        low, high = self.range
        for beyond in self.ood:
            if beyond[0] < high and beyond[1] > low:
                raise ConfigError(
                    f"{self.key}.ood is {[*beyond]}; allowed: what does not overlap the range, {[low, high]}"
                )

    def _ranges(self) -> list[tuple[str, Interval]]:
        return [("range", self.range), ("test", self.test), *(("ood", beyond) for beyond in self.ood)]

    def described(self) -> TaskParameter:
        """What a family says of it: all that is accepted, and what is trained."""
        edges = [edge for _, interval in self._ranges() for edge in interval]
        low, high = min(edges), max(edges)
        known = self.default is not None and low <= self.default <= high
        return TaskParameter(
            self.name, self.unit, low, high, *self.range, default=self.default if known else None
        )

    def draw(self, split: str, n: int, rng: np.random.RandomState) -> np.ndarray:
        """n values for the pool of the test or the ood split, [n]."""
        ranges = (self.test,) if split == "test" else self.ood or (self.range,)
        low, high = np.array([[self.scaled(edge) for edge in interval] for interval in ranges]).T
        which = rng.choice(len(ranges), n, p=(high - low) / (high - low).sum())
        values = low[which] + (high - low)[which] * rng.random_sample(n)
        edges = np.array(ranges)[which].T
        return np.clip(np.exp(values) if self.log else values, *edges)  # the exponential rounds

    def scaled(self, value: float) -> float:
        """The value, or its logarithm, in which it is uniform."""
        return float(np.log(value)) if self.log else value


def pools(parameters: tuple[Parameter, ...], n: int, seed: int) -> dict[str, np.ndarray]:
    """The fixed pools of the test and the ood split, [n, P] each."""
    rng = np.random.RandomState(seed)
    return {split: np.stack([p.draw(split, n, rng) for p in parameters], -1) for split in ("test", "ood")}
