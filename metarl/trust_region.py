"""A trust-region step: conjugate gradient on curvature products, then a line search (TRPO, 2015)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int = 10, tolerance: float = 1e-10
) -> tuple[Tensor, Tensor]:
    """x with A x ≈ b, and A x itself, for a symmetric positive definite A given by its products, all [P]."""
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    norm = residual.dot(residual)
    for _ in range(iterations):
        if norm < tolerance:
            break
        image = product(direction)
        step = norm / direction.dot(image)
        x, residual = x + step * direction, residual - step * image
        norm, before = residual.dot(residual), norm
        direction = residual + norm / before * direction
    return x, b - residual


def largest_step(direction: Tensor, image: Tensor, max_kl: float) -> Tensor:
    """The direction scaled to ½ s'As = max_kl, given its image A s, [P]."""
    return direction * (2 * max_kl / direction.dot(image).clamp(min=1e-12)).sqrt()


class Found(NamedTuple):
    """Where a line search ended; scale 0 means that no point was accepted."""

    scale: float
    improvement: float
    kl: float


def line_search(
    evaluate: Callable[[float], tuple[float, float]],
    max_kl: float,
    shrink: float = 0.8,
    tries: int = 15,
) -> Found:
    """The first of 1, shrink, shrink², ... whose (improvement, kl) is positive and within the region."""
    for k in range(tries):
        scale = shrink**k
        improvement, kl = evaluate(scale)
        if improvement > 0 and kl <= max_kl:  # false for NaN, too
            return Found(scale, improvement, kl)
    return Found(0.0, 0.0, 0.0)
