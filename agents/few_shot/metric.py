"""What learners that compare share: one embedding of pictures, and the embedded support set as belief."""

from abc import abstractmethod
from typing import Any

import gymnasium as gym
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn

from metarl import STRICT, ConfigError, Embedding, Rollout, Trial, device
from metarl.networks import Pooling

from .learner import Examples, FewShotLearner, LearnerConfig

CHUNK = 128  # pictures embedded at a time, where no gradient is asked for: they fit a cache


@dataclass(frozen=True, config=STRICT, kw_only=True)
class MetricConfig(LearnerConfig):
    """Settings of the embedding."""

    filters: PositiveInt = 32
    """Channels of each of the four convolutions."""
    pooling: Pooling = "max"
    """How they halve a picture."""


class MetricLearner(FewShotLearner):
    """An embedding, and a comparison of the embedded queries with the embedded support set.

    A belief is the support set so far, Examples of embedded pictures [N, E, D] with their labels [N, E].
    """

    Config: type[MetricConfig]  # the settings, which a subclass declares
    config: MetricConfig
    pooled = 4  # how many of the convolutions halve a "max" picture

    def __init__(
        self,
        observation_space: gym.spaces.Box,
        action_space: Any,
        rng: Generator,
        config: MetricConfig | None = None,
    ) -> None:
        super().__init__(observation_space, action_space, rng)
        self.config = c = config or self.Config()
        if not self.classes or len(self.shape) != 3:
            raise ConfigError(
                f"observations are {list(self.shape)} and actions {type(action_space).__name__}; allowed for "
                f"{type(self).__name__}: pictures [channels, height, width] and Discrete classes"
            )
        self.embedding = Embedding(self.shape, c.filters, rng, c.pooling, self.pooled)
        self.make_comparison(rng)
        self.optimise()

    def make_comparison(self, rng: Generator) -> None:
        """Make what the comparison learns, as parameters of this module; nothing by default."""

    @abstractmethod
    def compare(self, support: Examples, query: Tensor) -> Tensor:
        """Logits [N, Q, C] of embedded queries [N, Q, ...], given an embedded support set [N, S, ...]."""

    def criterion(self, logits: Tensor, y: Tensor) -> Tensor:
        """What is minimised, [N]: cross-entropy, where nothing else is published."""
        return self.loss(logits, y)

    # --- the agent's side of a trial

    def begin(self, tasks: int, episodes: int) -> Examples:
        """An empty support set."""
        where = self.rng.device
        return Examples(
            torch.zeros(tasks, 0, *self.features, device=where),
            torch.zeros(tasks, 0, dtype=torch.int64, device=where),
        )

    @property
    def features(self) -> tuple[int, ...]:
        """The shape of an embedded picture."""
        return (self.embedding.features,)

    @torch.no_grad()
    def adapt(self, belief: Examples, rollout: Rollout) -> Examples:
        """Remember a round's examples."""
        if self.training:
            return belief
        x, y = Examples.of(rollout, self.classes)
        return Examples(torch.cat([belief.x, self.embed(x, False)], 1), torch.cat([belief.y, y], 1))

    @torch.no_grad()
    def predict(self, belief: Examples, x: Tensor) -> Tensor:
        """The comparison with all that is remembered; nothing remembered is no preference."""
        if not belief.x.shape[1]:
            return x.new_zeros(*x.shape[:2], self.classes)
        parts = device.parts(len(x), max(1, CHUNK // x.shape[1]))
        return torch.cat(
            [self.compare(Examples(belief.x[s], belief.y[s]), self.embed(x[s], False)) for s in parts]
        )

    def embed(self, x: Tensor, learns: bool) -> Tensor:
        """Pictures [N, E, *shape] to features [N, E, D]; those that do not learn in chunks."""
        flat = x.flatten(0, 1)
        if learns:
            return self.one(flat, True).unflatten(0, x.shape[:2])
        found = device.map_tasks(lambda s: self.one(flat[s], False), device.parts(len(flat), CHUNK))
        return torch.cat(found).unflatten(0, x.shape[:2])

    def one(self, x: Tensor, learns: bool) -> Tensor:
        """Pictures [B, *shape] to features [B, ...]."""
        features: Tensor = self.embedding(x, learns)
        return features

    # --- learning across tasks

    @device.every_core()
    def meta_update(self, trial: Trial) -> dict[str, float]:
        """A step of Adam on the queries' loss; all pictures of the meta-batch are embedded at once."""
        *supports, query = self.examples(trial)
        with torch.enable_grad():
            whole = self.embed(torch.cat([e.x for e in (*supports, query)], 1), True)
            queries = query.x.shape[1]
            known = Examples(whole[:, :-queries], torch.cat([e.y for e in supports], 1))
            logits = self.compare(known, whole[:, -queries:])
            loss = self.criterion(logits, query.y).mean()
            gradients = torch.autograd.grad(loss, list(self.parameters()))
        norm = self.descend(gradients)
        told = torch.stack([loss.detach(), self.earned(logits.detach(), query.y).mean(), norm]).tolist()
        names = ("loss", f"return_{len(supports)}", "gradient_norm")
        return dict(zip(names, told, strict=True)) | self.told()

    def told(self) -> dict[str, float]:
        """What a comparison says of itself in the metrics."""
        return {}


def by_class(score: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean over each class's examples: scores [N, Q, S] and labels [N, S] to [N, Q, C]."""
    member = nn.functional.one_hot(labels, classes).to(score.dtype)
    return score @ (member / member.sum(1, keepdim=True).clamp(min=1))
