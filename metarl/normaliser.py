"""Running means and standard deviations of what a network reads or predicts."""

import torch
from torch import Tensor, nn

LIMIT = 10.0  # standard deviations beyond which an input tells no more


class Normaliser(nn.Module):
    """The mean and variance of all features seen so far (Chan et al. 1983); before that 0 and 1."""

    def __init__(self, features: int, device: torch.device) -> None:
        super().__init__()
        for name, value in (("mean", 0.0), ("variance", 1.0), ("count", 0.0)):
            shape = () if name == "count" else (features,)
            self.register_buffer(name, torch.full(shape, value, dtype=torch.float64, device=device))
        self.mean: Tensor
        self.variance: Tensor
        self.count: Tensor

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Count rows in, [M, F]."""
        x = x.double()
        count, mean, variance = len(x), x.mean(0), x.var(0, correction=0)
        total, shift = self.count + count, mean - self.mean
        spread = self.variance * self.count + variance * count + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.variance.copy_(spread / total)
        self.count.copy_(total)

    @property
    def std(self) -> Tensor:
        """[F]; a feature that never changes counts as one."""
        return self.variance.sqrt().masked_fill(self.variance < 1e-12, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """(x - mean) / std, within ±10."""
        return ((x - self.mean.to(x.dtype)) / self.std.to(x.dtype)).clamp(-LIMIT, LIMIT)

    def inverse(self, x: Tensor) -> Tensor:
        """x std + mean."""
        return x * self.std.to(x.dtype) + self.mean.to(x.dtype)
