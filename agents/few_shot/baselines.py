"""What learns nothing across tasks, to compare with: nearest pixels, a linear head on them, ridge, Bayes."""

from abc import abstractmethod
from typing import Annotated, Any, Literal

import gymnasium as gym
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.nn import functional as F

from metarl import STRICT, ConfigError, Rollout, Trial

from .learner import Examples, FewShotLearner


class Untaught(FewShotLearner):
    """Its belief is all examples so far, the inputs flat; there is nothing to meta-learn."""

    untrained = False
    answers: Literal["classes", "numbers"]  # what it can say

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config:
        """None."""

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: Any = None,
    ) -> None:
        super().__init__(observation_space, action_space, rng)
        self.config = config or self.Config()
        self.inputs = int(torch.Size(self.shape).numel())
        able = bool(self.classes) if self.answers == "classes" else not self.classes and self.inputs == 1
        if not able:
            wanted = "Discrete classes" if self.answers == "classes" else "curves, one number to one number"
            raise ConfigError(
                f"observations are {list(self.shape)} and actions {type(action_space).__name__}; allowed for "
                f"{type(self).__name__}: {wanted}"
            )

    def begin(self, tasks: int, episodes: int) -> Examples:
        """No example."""
        where = self.rng.device
        y = torch.zeros(tasks, 0, dtype=torch.int64, device=where)
        if not self.classes:
            y = torch.zeros(tasks, 0, self.outputs, device=where)
        return Examples(torch.zeros(tasks, 0, self.inputs, device=where), y)

    def adapt(self, belief: Examples, rollout: Rollout) -> Examples:
        """Remember a round's examples."""
        if self.training:
            return belief
        x, y = Examples.of(rollout, self.classes)
        return Examples(torch.cat([belief.x, x.flatten(2)], 1), torch.cat([belief.y, y], 1))

    def predict(self, belief: Examples, x: Tensor) -> Tensor:
        """Of no examples, no preference."""
        if not belief.x.shape[1]:
            return x.new_zeros(*x.shape[:2], self.outputs)
        return self.answer(belief, x.flatten(2))

    @abstractmethod
    def answer(self, support: Examples, x: Tensor) -> Tensor:
        """Logits or numbers [N, Q, K] for flat inputs [N, Q, I]."""

    def meta_update(self, trial: Trial) -> dict[str, float]:
        """There is nothing to learn; the queries' return."""
        belief = self.begin(len(trial.tasks.ids), 0)
        *supports, query = self.examples(trial)
        for x, y in supports:
            belief = Examples(torch.cat([belief.x, x.flatten(2)], 1), torch.cat([belief.y, y], 1))
        earned = self.earned(self.predict(belief, query.x), query.y).mean()
        self.updates += 1
        return {f"return_{len(supports)}": earned.item()}


class NearestNeighbour(Untaught):
    """The class of the nearest picture, pixel by pixel; of several examples the nearest one decides."""

    answers = "classes"

    def answer(self, support: Examples, x: Tensor) -> Tensor:
        """By the distance of pixels."""
        return nearest(support, x, self.classes)


def nearest(support: Examples, x: Tensor, classes: int) -> Tensor:
    """-min ‖x - x_i‖ over the examples of each class, of vectors [N, S, D] and [N, Q, D]; [N, Q, C]."""
    distance = torch.cdist(x, support.x)  # [N, Q, S]
    far = [distance.masked_fill((support.y != c).unsqueeze(1), 1e9).amin(-1) for c in range(classes)]
    return -torch.stack(far, -1)


class LinearHead(Untaught):
    """A softmax regression on pixels from scratch, by gradient descent with weight decay."""

    answers = "classes"

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config:
        """Settings of its training on each support set."""

        lr: PositiveFloat = 0.1
        """Size of a gradient step."""
        steps: PositiveInt = 100
        """Gradient steps."""
        weight_decay: Annotated[float, Field(ge=0)] = 0.01
        """What pulls weights to 0."""

    config: Config

    def answer(self, support: Examples, x: Tensor) -> Tensor:
        """By a regression on pixels."""
        c = self.config
        return softmax_regression(support, x, self.classes, c.lr, c.steps, c.weight_decay)


def softmax_regression(
    support: Examples, x: Tensor, classes: int, lr: float, steps: int, decay: float = 0.0
) -> Tensor:
    """W x + b after steps W ← W - α (Σ (p - y) x' / S + λ W) from 0; [N, S, D], [N, Q, D] to [N, Q, C]."""
    y = F.one_hot(support.y, classes).to(x.dtype)
    weight, bias = x.new_zeros(len(x), x.shape[-1], classes), x.new_zeros(len(x), 1, classes)
    for _ in range(steps):
        wrong = ((support.x @ weight + bias).softmax(-1) - y) / support.x.shape[1]
        weight = weight - lr * (support.x.mT @ wrong + decay * weight)
        bias = bias - lr * wrong.sum(1, keepdim=True)
    return x @ weight + bias


class Bayes(Untaught):
    """The posterior mean of a curve with two parameters, uniform on a grid: none can expect less error.

    It is told the curves and their prior, which learners have to find out: their ceiling, in distribution.
    """

    answers = "numbers"

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config:
        """What is known of the family."""

        curve: Annotated[str, Field(pattern="^(sine|line)$")] = "sine"
        """sine: A sin(x - φ); line: a x + b."""
        low: tuple[float, float] = (0.1, 0.0)
        """Least parameters."""
        high: tuple[float, float] = (5.0, 3.141592653589793)
        """Largest parameters."""
        noise: PositiveFloat = 0.05
        """Standard deviation of the noise, or of what the grid misses."""
        points: PositiveInt = 65
        """Of the grid, each way."""

    config: Config

    def predict(self, belief: Examples, x: Tensor) -> Tensor:
        """Of no examples, by the prior."""
        return self.answer(belief, x)

    def answer(self, support: Examples, x: Tensor) -> Tensor:
        """E[f(x) | the examples], [N, Q, 1]."""
        c = self.config
        ends = zip(c.low, c.high, strict=True)
        axes = [torch.linspace(a, b, c.points, device=x.device, dtype=x.dtype) for a, b in ends]
        grid = torch.cartesian_prod(*axes)  # [G, 2]
        weights = self.weights(grid)
        error = self.basis(support.x) @ weights.mT - support.y  # [N, S, G]
        posterior = (-0.5 * (error / c.noise).square().sum(1)).softmax(-1)  # [N, G]
        return self.basis(x) @ (posterior @ weights).unsqueeze(-1)

    def weights(self, grid: Tensor) -> Tensor:
        """What the parameters [G, 2] of curves weigh their basis with, [G, 2]."""
        a, b = grid.unbind(-1)
        return torch.stack([a * b.cos(), -a * b.sin()], -1) if self.config.curve == "sine" else grid

    def basis(self, x: Tensor) -> Tensor:
        """What A cos φ sin x - A sin φ cos x and a x + b are linear in, [N, Q, 1] to [N, Q, 2]."""
        if self.config.curve == "sine":
            return torch.cat([x.sin(), x.cos()], -1)
        return torch.cat([x, torch.ones_like(x)], -1)


class Ridge(Untaught):
    """Ridge regression in (x, 1): the posterior mean of a line under a Gaussian prior."""

    answers = "numbers"

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config:
        """What is known of the family."""

        penalty: PositiveFloat = 0.1875
        """The noise's variance over that of the coefficients: 0.5² / (2² / 3)."""

    config: Config

    def answer(self, support: Examples, x: Tensor) -> Tensor:
        """x' (X'X + λ I)^-1 X'y."""
        design, asked = (F.pad(v, (0, 1), value=1.0) for v in (support.x, x))
        eye = self.config.penalty * torch.eye(design.shape[-1], device=x.device, dtype=x.dtype)
        return asked @ torch.linalg.solve(design.mT @ design + eye, design.mT @ support.y)
