"""Matching networks: Vinyals et al. 2016: p(y | x) = Σ_i a(x, x_i) y_i, a a softmax of scaled cosines.

With full context embeddings (appendix A there) a bidirectional LSTM g reads the support set, and an LSTM f
with attention over it reads each query. The cosine's scale is learned: unscaled, it can be sure of nothing.
"""

import math
from typing import Any

import torch
from pydantic import NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from metarl import STRICT

from .learner import Examples
from .metric import MetricConfig, MetricLearner

NEVER = -1e9  # the logarithm of no attention


class Matching(MetricLearner):
    """A vote of the support set, weighted by likeness."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(MetricConfig):
        """Settings of the embedding and of the attention."""

        scale: PositiveFloat = 10.0
        """Where the cosine's scale starts."""
        full_context: bool = False
        """Embed every picture in the context of the whole support set (FCE)."""
        processing_steps: NonNegativeInt = 5
        """Steps of attention with which a query is read, where there is full context."""

    config: Config

    def make_comparison(self, rng: Generator) -> None:
        """The scale, and the two LSTMs."""
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.config.scale), device=rng.device))
        if self.config.full_context:
            size = self.embedding.features
            self.g = _filled(nn.LSTM(size, size, bidirectional=True, batch_first=True, device="meta"), rng)
            self.f = _filled(nn.LSTMCell(2 * size, size, device="meta"), rng)

    def compare(self, support: Examples, query: Tensor) -> Tensor:
        """log Σ_i a(x, x_i) [y_i = c], [N, Q, C]."""
        x = support.x
        if self.config.full_context:
            x = self.in_context(x)
            query = self.read(query, x)
        cosine = F.normalize(query, dim=-1) @ F.normalize(x, dim=-1).mT
        attention = (self.log_scale.exp() * cosine).log_softmax(-1)  # log a, [N, Q, S]
        own = [attention.masked_fill((support.y != c).unsqueeze(1), NEVER) for c in range(self.classes)]
        return torch.stack([a.logsumexp(-1) for a in own], -1)

    def in_context(self, x: Tensor) -> Tensor:
        """g(x_i, S) = h→_i + h←_i + g'(x_i), [N, S, D]."""
        forth, back = self.g(x)[0].chunk(2, -1)
        return forth + back + x

    def read(self, query: Tensor, x: Tensor) -> Tensor:
        """f(x, S): h_k = LSTM(f'(x), [h_{k-1}, r_{k-1}]) + f'(x), r the support set as h attends to it."""
        flat = query.flatten(0, 1)
        h, c = flat, torch.zeros_like(flat)
        for _ in range(self.config.processing_steps):
            attention = (h.unflatten(0, query.shape[:2]) @ x.mT).softmax(-1)
            r = (attention @ x).flatten(0, 1)
            h, c = self.f(torch.cat([flat, r], -1), (h, c))
            h = h + flat
        return h.unflatten(0, query.shape[:2])

    def told(self) -> dict[str, float]:
        """The cosine's scale."""
        return {"scale": self.log_scale.exp().item()}


def _filled(layer: Any, rng: Generator) -> Any:
    """A recurrent layer made without values, with those that torch would draw from the global generator."""
    layer = layer.to_empty(device=rng.device)
    bound = 1 / math.sqrt(layer.hidden_size)
    for p in layer.parameters():
        p.data.uniform_(-bound, bound, generator=rng)
    return layer
