"""PEARL's inference network: a posterior over the task's embedding, whatever the order of the context.

Rakelly et al. 2019, equation 2: each transition c_n says N(μ(c_n), σ²(c_n)) of the embedding, and the
posterior is their product, q(z | c_1, ..., c_n) ∝ Π N(z; μ_n, σ_n²): precisions and precision-weighted means
add up.
"""

from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from pydantic import NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from metarl import STRICT, Gaussian, linear

LEAST_VARIANCE = 1e-7
UNSURE, MOST = -5.0, 9.0  # log precision of an untrained step, and the most that one may have


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TaskEncoderConfig:
    """Settings of the inference network."""

    latent_dim: PositiveInt = 5
    """Dimensions of the task's embedding z."""
    encoder_layers: tuple[PositiveInt, ...] = (200, 200, 200)
    """Widths of the encoder's layers."""
    pooling: Literal["product", "posterior", "mean"] = "product"
    """How a context's steps are joined: a product of Gaussians; the same with the prior as one of them, so
    that steps may tell nothing; or the mean of embeddings without noise."""
    next_obs_in_context: bool = False
    """Whether a step of the context tells where it led: needed where tasks differ in their dynamics."""
    kl_weight: NonNegativeFloat = 0.1
    """Weight of the posterior's divergence from the prior, the information bottleneck."""


class Evidence(NamedTuple):
    """What a context says of the embedding, in a form that adds up; zeros: nothing."""

    precision: Tensor  # [..., Z], Σ_n 1 / σ_n²; with mean pooling the number of steps
    weighted: Tensor  # [..., Z], Σ_n μ_n / σ_n²; with mean pooling Σ_n of their embeddings

    def plus(self, other: "Evidence") -> "Evidence":
        """Both contexts."""
        return Evidence(self.precision + other.precision, self.weighted + other.weighted)

    def sum(self, dim: int) -> "Evidence":
        """All steps along an axis."""
        return Evidence(*(x.sum(dim) for x in self))


class TaskEncoder(nn.Module):
    """From the steps of a context to the posterior."""

    def __init__(self, inputs: int, config: TaskEncoderConfig, rng: Generator) -> None:
        super().__init__()
        self.pooling = config.pooling
        self.product = config.pooling != "mean"
        sizes = [inputs, *config.encoder_layers]
        layers = [[linear(a, b, rng), nn.ReLU(inplace=True)] for a, b in pairwise(sizes)]
        said = config.latent_dim * (1 + self.product)
        self.layers = nn.Sequential(*(x for pair in layers for x in pair), linear(sizes[-1], said, rng, 0.1))

    def forward(self, context: Tensor) -> Evidence:
        """What each step [..., I] says alone."""
        found: Tensor = self.layers(context)
        if not self.product:
            return Evidence(torch.ones_like(found), found)
        mean, raw = found.chunk(2, -1)
        if self.pooling == "posterior":
            precision = (raw + UNSURE).clamp(max=MOST).exp()
        else:
            precision = 1 / F.softplus(raw).clamp(min=LEAST_VARIANCE)
        return Evidence(precision, mean * precision)

    def posterior(self, evidence: Evidence) -> Gaussian:
        """q(z | c), [..., Z]; the prior N(0, 1) of an empty context. With mean pooling it has no width."""
        precision, weighted = evidence
        if self.pooling == "posterior":
            precision = precision + 1
        empty = precision == 0
        mean = weighted / precision.masked_fill(empty, 1.0)
        if not self.product:
            return Gaussian(mean, torch.full_like(mean, -torch.inf))
        return Gaussian(mean, -0.5 * precision.masked_fill(empty, 1.0).log())

    def divergence(self, posterior: Gaussian) -> Tensor:
        """KL(q(z | c) ‖ N(0, 1)), [...]; 0 of an embedding without noise."""
        zero = torch.zeros_like(posterior.mean)
        return posterior.kl(Gaussian(zero, zero)) if self.product else zero.sum(-1)
