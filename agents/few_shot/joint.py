"""Joint training and fine-tuning, to compare with: one network for all tasks at once, adapted as it comes.

Pictures: a classifier of all training classes, whose features serve a new head or a nearest neighbour (Chen
et al. 2019, "A Closer Look at Few-shot Classification"). Curves: one network on the examples of all tasks, as
in Finn et al. 2017.
"""

from typing import Any, Literal

import gymnasium as gym
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from metarl import STRICT, ConfigError, Rollout, Trial, device

from .baselines import NearestNeighbour
from .gradient import Belief, GradientConfig, GradientLearner, Params
from .learner import Examples

HEAD = 2  # the last layer's weight and bias


class Joint(GradientLearner):
    """What plain training on all tasks gives; its adaptation is an afterthought."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(GradientConfig):
        """Settings of the network, its training, and what is done with it in a new task."""

        adaptation: Literal["fine_tune", "head", "nearest"] = "fine_tune"
        """Adapt all layers, the last one only, or compare features (pictures only)."""
        train_classes: PositiveInt = 4112
        """Classes that the training has at most; ignored for curves."""

    config: Config

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: Config | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, rng, config or self.Config())

    def make_rule(self) -> None:
        """The head that tells all training classes apart; that of the few of a task starts from 0."""
        if self.classes:
            weight = self.network.weights[-HEAD]
            size = self.config.train_classes, weight.shape[1]
            start = torch.randn(size, generator=self.rng, device=self.rng.device) / size[1] ** 0.5
            self.head = nn.ParameterList([start, torch.zeros(size[0], device=self.rng.device)])
            weight.data.zero_()
        elif self.config.adaptation == "nearest":
            raise ConfigError(
                "agent.adaptation is 'nearest'; allowed where answers are numbers: fine_tune, head"
            )

    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """Plain gradient descent."""
        lr, whole = self.config.inner_lr, self.config.adaptation != "head"
        fixed = 0 if whole else len(params) - HEAD
        moved = [p - lr * g for p, g in zip(params[fixed:], gradient[fixed:], strict=True)]
        return [*params[:fixed], *moved], memory

    # --- adaptation by comparison

    @torch.no_grad()
    def adapt(self, belief: Any, rollout: Rollout) -> Any:
        """Fine-tune, or remember the features."""
        if self.training or self.config.adaptation != "nearest":
            return super().adapt(belief, rollout)
        support = Examples.of(rollout, self.classes)
        return belief._replace(params=[self.features(support.x), support.y])

    @torch.no_grad()
    def predict(self, belief: Belief, x: Tensor) -> Tensor:
        """The fine-tuned network's answers, or those of the nearest features."""
        if self.config.adaptation != "nearest" or len(belief.params) != HEAD:
            return super().predict(belief, x)
        return NearestNeighbour.answer(self, Examples(*belief.params), self.features(x))  # type: ignore[arg-type]

    def variants(self, belief: Belief) -> dict[str, Belief]:
        """Neighbours have no other way to normalise."""
        return {} if self.config.adaptation == "nearest" else super().variants(belief)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees of pictures [N, E, *shape], each task's normalised alone, [N, E, D]."""
        body = self.network.params[:-HEAD]
        return torch.stack([self.network.run(body, each).value for each in x])

    # --- joint training

    @device.every_core()
    def meta_update(self, trial: Trial) -> dict[str, float]:
        """A step of Adam on all examples of all tasks, as if they were one."""
        x = torch.cat([r.obs[0] for r in trial.rounds], 1).flatten(0, 1)
        y = torch.cat([r.target[0] for r in trial.rounds], 1).flatten(0, 1)
        parameters = list(self.parameters())
        with torch.enable_grad():
            if self.classes:
                if int(y[:, 1].max()) >= self.config.train_classes:
                    allowed = f"{int(y[:, 1].max()) + 1} or more"
                    raise ConfigError(
                        f"agent.train_classes is {self.config.train_classes}; allowed here: {allowed}"
                    )
                features = self.network.run(self.network.params[:-HEAD], x).value
                loss = F.cross_entropy(F.linear(features, *self.head), y[:, 1])
            else:
                loss = F.mse_loss(self.network.run(self.network.params, x).value, y)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
        norm = self.descend(filled)
        return {"loss": loss.item(), "gradient_norm": norm.item()}
