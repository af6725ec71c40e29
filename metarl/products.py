"""Linear layers whose large products of float32 go to oneDNN on the CPU.

torch gives its matrix products to MKL, and convolutions alone to oneDNN. Where MKL does not use AVX-512, as
on an AMD EPYC of 2025, the latter is twice as fast (4096 x 300 x 300: 86 and 196 GFLOP/s on a core). A sum
may be taken in another order with another number of threads.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORTH = 2**24  # multiplications from which on oneDNN's dearer call, and that from autograd, paid there


def _onednn() -> Callable[..., Tensor] | None:
    """x W' + b of matrices, as torch's compiler calls it; none in a build of torch without it."""
    one = torch.ones(1, 1, dtype=torch.float32, device="cpu")
    try:
        found: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
        return found if found(one, one, one[0], "none", [], "").item() == 2 else None
    except (AttributeError, RuntimeError, TypeError):  # it is torch's own business, and may change
        return None


ONEDNN = _onednn()


class Linear(nn.Linear):
    """torch's, on any device, with the same parameters and derivatives."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        return affine(x, self.weight, self.bias)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W' + b of x [..., I], W [O, I] and b [O]."""
    if not worth(x, x.numel() * weight.shape[0]):
        return F.linear(x, weight, bias)
    y: Tensor = _Affine.apply(x.reshape(-1, x.shape[-1]), weight, bias)
    return y.view(*x.shape[:-1], -1)


def perceptrons(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """k perceptrons with relu, of weights [k, I, O] and biases [k, 1, O], on the same x [M, I]: [k, M, O].

    A layer is one batched product, or where it is large one for each, as oneDNN has none of batches.
    """
    k = len(weights[0])
    if any(worth(x, len(x) * w[0].numel()) for w in weights):
        layers = [(w.mT.unbind(), b.squeeze(1).unbind()) for w, b in zip(weights, biases, strict=True)]
        return torch.stack([_perceptron(x, [(w[i], b[i]) for w, b in layers]) for i in range(k)])
    h = x.expand(k, -1, -1)
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h = torch.relu_(torch.baddbmm(bias, h, weight))
    return torch.baddbmm(biases[-1], h, weights[-1])


def _perceptron(x: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    for weight, bias in layers[:-1]:
        x = torch.relu_(affine(x, weight, bias))
    return affine(x, *layers[-1])


def worth(x: Tensor, multiplications: int) -> bool:
    """Whether a product goes to oneDNN: by device, dtype and size alone, so that the same one always does."""
    return (
        multiplications >= WORTH
        and ONEDNN is not None
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch._C._are_functorch_transforms_active()  # torch.func knows no rule for it
    )


class _Affine(torch.autograd.Function):
    """Its derivatives are products in turn, and so have derivatives themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        assert ONEDNN is not None
        wanted = ctx.needs_input_grad
        ctx.save_for_backward(x if wanted[1] else None, weight if wanted[0] else None)
        # it heeds the strides of matrices, and not the bias's
        return ONEDNN(x, weight, None if bias is None else bias.contiguous(), "none", [], "")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        of_x = affine(gradient, weight.T) if weight is not None else None
        of_weight = affine(gradient.T, x.T) if x is not None else None
        return of_x, of_weight, gradient.sum(0) if ctx.needs_input_grad[2] else None
