"""Relation networks: Sung et al. 2018, "Learning to Compare": a network judges how alike two pictures are.

r = g([mean_{i of class} f(x_i), f(x)]) in (0, 1), trained towards 1 for the right class, and 0 for others.
The paper sums: the mean is the same for one picture, and lets one network serve any number.
"""

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.nn import functional as F

from metarl import STRICT, Embedding, linear

from .learner import Examples
from .metric import MetricConfig, MetricLearner


class Relation(MetricLearner):
    """The comparison itself is learned."""

    pooled = 2

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(MetricConfig):
        """Settings of the embedding and of the relation module."""

        relation_hidden: PositiveInt = 8
        """Width of the relation module's hidden layer."""

    config: Config

    @property
    def features(self) -> tuple[int, ...]:
        """The shape of an embedded picture: maps, not a vector."""
        return (self.config.filters, *self.embedding.size)

    def one(self, x: Tensor, learns: bool) -> Tensor:
        """Pictures [B, *shape] to feature maps [B, F, h, w]."""
        return self.embedding.maps(x, learns)

    def make_comparison(self, rng: Generator) -> None:
        """The relation module: two blocks, and two layers."""
        c = self.config
        shape = 2 * c.filters, *self.embedding.size
        halved = sum(min(self.embedding.size) >= 2**k for k in (1, 2))
        self.relation = Embedding(shape, c.filters, rng, pooled=halved, depth=2)
        self.hidden = linear(self.relation.features, c.relation_hidden, rng)
        self.output = linear(c.relation_hidden, 1, rng, gain=1.0)

    def compare(self, support: Examples, query: Tensor) -> Tensor:
        """The logit of each relation score, [N, Q, C]."""
        member = F.one_hot(support.y, self.classes).to(query.dtype)
        share = member / member.sum(1, keepdim=True).clamp(min=1)
        means = torch.einsum("nsc,ns...->nc...", share, support.x)  # of each class's maps
        n, q = query.shape[:2]
        pairs = torch.cat(
            [
                means.unsqueeze(1).expand(-1, q, *[-1] * 4),
                query.unsqueeze(2).expand(-1, -1, self.classes, *[-1] * 3),
            ],
            3,
        )
        learns = torch.is_grad_enabled()  # which nothing but the meta-update asks for
        features = self.relation(pairs.flatten(0, 2), learns)
        logits: Tensor = self.output(self.hidden(features).relu())
        return logits.view(n, q, self.classes)

    def criterion(self, logits: Tensor, y: Tensor) -> Tensor:
        """Σ_c (r_c - [y = c])², averaged over queries, [N]."""
        wanted = F.one_hot(y, self.classes).to(logits.dtype)
        return (logits.sigmoid() - wanted).square().sum(-1).mean(-1)
