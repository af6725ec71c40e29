"""Siamese networks: Koch et al. 2015: p(same class | a, b) = σ(Σ_j w_j |f(a)_j - f(b)_j| + b).

Trained on pairs, where classes have several pictures on the mean of theirs; a query's class is that whose
pictures are the likeliest to be of the same.
"""

import torch
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from metarl import STRICT

from .learner import Examples
from .metric import MetricConfig, MetricLearner, by_class


class Siamese(MetricLearner):
    """Same or different, pair by pair."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(MetricConfig):
        """Settings of the embedding and of the meta-training."""

    def make_comparison(self, rng: Generator) -> None:
        """The weights of the distance, and its threshold."""
        size, where = self.embedding.features, rng.device
        self.weight = nn.Parameter(torch.full((size,), -4.0 / size, device=where))
        self.threshold = nn.Parameter(torch.full((), 2.0, device=where))

    def alike(self, support: Tensor, query: Tensor) -> Tensor:
        """The logit of being of one class, of every pair, [N, Q, S]; a and b may change places."""
        distance = (query.unsqueeze(2) - support.unsqueeze(1)).abs()
        return distance @ self.weight + self.threshold

    def compare(self, support: Examples, query: Tensor) -> Tensor:
        """The mean logit with each class's examples, [N, Q, C]."""
        return by_class(self.alike(support.x, query), support.y, self.classes)

    def criterion(self, logits: Tensor, y: Tensor) -> Tensor:
        """Binary cross-entropy, in which pairs of one class weigh as much as all others together, [N]."""
        same = F.one_hot(y, self.classes).to(logits.dtype)
        weight = same + (1 - same) / (self.classes - 1)
        losses = F.binary_cross_entropy_with_logits(logits, same, weight, reduction="none")
        return losses.sum(-1).mean(-1) / 2
