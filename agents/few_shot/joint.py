"""Joint training and fine-tuning, to compare with: one network for all tasks at once, adapted as it comes.

Pictures: a classifier of all training classes, whose features serve a new head or a nearest neighbour (Chen
et al. 2019, "A Closer Look at Few-shot Classification"). Curves: one network on the examples of all tasks, as
in Finn et al. 2017.
"""

from typing import Any, Literal

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from metarl import STRICT, ConfigError, Rollout, Trial, device

from .baselines import nearest, softmax_regression
from .gradient import HEAD, Belief, GradientConfig, GradientLearner, Params
from .learner import Examples


class Joint(GradientLearner):
    """What plain training on all tasks gives; its adaptation is an afterthought."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(GradientConfig):
        """Settings of the network, its training, and what is done with it in a new task."""

        adaptation: Literal["fine_tune", "head", "nearest"] = "fine_tune"
        """Adapt all layers; or, of pictures, learn a last layer from 0, or take the nearest features."""
        train_classes: PositiveInt = 4112
        """Classes that the training has at most; ignored for curves."""

    config: Config

    def make_rule(self) -> None:
        """The head that tells all training classes apart; that of the few of a task starts from 0."""
        if self.classes:
            weight = self.network.weights[-HEAD]
            size = self.config.train_classes, weight.shape[1]
            start = torch.randn(size, generator=self.rng, device=self.rng.device) / size[1] ** 0.5
            self.head = nn.ParameterList([start, torch.zeros(size[0], device=self.rng.device)])
            weight.data.zero_()
        elif self.config.adaptation != "fine_tune":
            raise ConfigError(
                f"agent.adaptation is {self.config.adaptation!r}; allowed of numbers: fine_tune"
            )

    def step(self, k: int, params: Params, gradient: Params, memory: Params) -> tuple[Params, Params]:
        """φ ← φ - α ∇L(φ)."""
        return [p - self.config.inner_lr * g for p, g in zip(params, gradient, strict=True)], memory

    # --- adaptation of features

    @property
    def by_gradient(self) -> bool:
        """Whether all of it is adapted by gradient steps."""
        return self.config.adaptation == "fine_tune"

    @torch.no_grad()
    def adapt(self, belief: Any, rollout: Rollout) -> Any:
        """Fine-tune, or remember the features."""
        if self.training or self.config.adaptation == "fine_tune":
            return super().adapt(belief, rollout)
        support = Examples.of(rollout, self.classes)
        new = Examples(self.features(support.x), support.y)
        known = [belief, new] if isinstance(belief, Examples) else [new]
        return Examples(*(torch.cat(parts, 1) for parts in zip(*known, strict=True)))

    @torch.no_grad()
    def predict(self, belief: Belief | Examples, x: Tensor) -> Tensor:
        """The fine-tuned network's answers, or those from features."""
        if isinstance(belief, Belief):
            return super().predict(belief, x)
        c, features = self.config, self.features(x)
        if c.adaptation == "nearest":
            return nearest(belief, features, self.classes)
        return softmax_regression(belief, features, self.classes, c.inner_lr, c.adapt_steps or c.inner_steps)

    def variants(self, belief: Belief | Examples) -> dict[str, Belief]:
        """Features have no other way to normalise."""
        return super().variants(belief) if isinstance(belief, Belief) else {}

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees of pictures [N, E, *shape], each task's normalised alone, [N, E, D]."""
        body = self.network.params[:-HEAD]

        def one(pictures: Tensor) -> Tensor:
            return self.network.run(body, pictures).value

        found: Tensor = self.over_tasks(vmap(one), x)
        return found

    # --- joint training

    @device.every_core()
    def meta_update(self, trial: Trial) -> dict[str, float]:
        """A step of Adam on all examples of all tasks, as if they were one, whose returns it tells."""
        self.examples(trial)  # or refuse
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
                y = y[:, 1]
                outputs = F.linear(self.network.run(self.network.params[:-HEAD], x).value, *self.head)
            else:
                outputs = self.network.run(self.network.params, x).value
            loss = self.loss(outputs, y)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
        norm = self.descend(filled)
        earned = self.earned(outputs.detach(), y).item()
        returns = {f"return_{k}": earned for k in range(len(trial.rounds))}
        return {"loss": loss.item(), "gradient_norm": norm.item(), **returns}
