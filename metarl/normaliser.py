"""Running means and standard deviations of what a network reads or predicts."""

import torch
from torch import Tensor, nn


class Normaliser(nn.Module):
    """The mean and variance of all features seen so far (Chan et al. 1983); before that 0 and 1.

    They are counted in float64, and applied in torch's default type.
    """

    def __init__(self, features: int, device: torch.device) -> None:
        super().__init__()
        zero, one = torch.zeros(features, device=device), torch.ones(features, device=device)
        self.register_buffer("count", zero.new_zeros((), dtype=torch.float64))
        self.register_buffer("exact_mean", zero.new_zeros(features, dtype=torch.float64))
        self.register_buffer("exact_variance", one.new_ones(features, dtype=torch.float64))
        self.register_buffer("mean", zero)
        self.register_buffer("std", one)
        self.count: Tensor
        self.exact_mean: Tensor
        self.exact_variance: Tensor
        self.mean: Tensor
        self.std: Tensor

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Count rows in, [M, F]; a feature that never changes counts as one of standard deviation 1."""
        x = x.double()
        count, mean, variance = len(x), x.mean(0), x.var(0, correction=0)
        total, shift = self.count + count, mean - self.exact_mean
        spread = self.exact_variance * self.count + variance * count
        spread += shift.square() * self.count * count / total
        self.count.copy_(total)
        self.exact_mean += shift * count / total
        self.exact_variance.copy_(spread / total)
        self.mean.copy_(self.exact_mean)
        self.std.copy_(self.exact_variance.sqrt().masked_fill(self.exact_variance < 1e-12, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """(x - mean) / std, not clamped."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """x std + mean."""
        return x * self.std + self.mean
