"""Matrix products of float32 on the CPU by oneDNN, where they are large enough to be worth its call.

torch hands its matrix products to MKL, which on AMD's processors leaves half of the vector units idle; its
convolutions go to oneDNN, which uses all of what it finds.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORTH = 2**20  # multiplications from which on oneDNN's dearer call pays


def _onednn() -> Callable[..., Tensor] | None:
    """x W' + b and what follows it, as torch's compiler calls it; none in a build without it."""
    one = torch.ones(1, 1, dtype=torch.float32)
    try:
        found: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
        return found if found(one, one, one[0], "relu", [], "").item() == 2 else None
    except (AttributeError, RuntimeError, TypeError):  # it is torch's own business, and may change
        return None


ONEDNN = _onednn()


class Linear(nn.Linear):
    """torch's, on any device, with the same parameters and the same derivatives."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        return affine(x, self.weight, self.bias)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """x W' + b, or max(0, x W' + b), of x [..., I], W [O, I] and b [O]."""
    if not worth(x, weight):
        small = F.linear(x, weight, bias)
        return torch.relu(small) if relu else small
    y: Tensor = _Affine.apply(x.flatten(0, -2), weight, bias, relu)
    return y.unflatten(0, x.shape[:-1])


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b of two matrices [M, I] and [I, O]."""
    return affine(a, b.T) if worth(a, b.T) else a @ b


def worth(x: Tensor, weight: Tensor) -> bool:
    """Whether a product goes to oneDNN: by device, dtype and size alone, so that the same one always does."""
    return (
        x.numel() * weight.shape[0] >= WORTH
        and ONEDNN is not None
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
    )


class _Affine(torch.autograd.Function):
    """Its derivatives are products in turn, and so have derivatives themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        assert ONEDNN is not None
        y = ONEDNN(x, weight, bias, "relu" if relu else "none", [], "")
        ctx.save_for_backward(x, weight, y if relu else None)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, y = ctx.saved_tensors
        wanted, g = ctx.needs_input_grad, gradient
        if y is not None:
            g = torch.ops.aten.threshold_backward(g, y, 0)
        of_x = product(g, weight) if wanted[0] else None
        of_weight = product(g.T, x) if wanted[1] else None
        return of_x, of_weight, g.sum(0) if wanted[2] else None, None
