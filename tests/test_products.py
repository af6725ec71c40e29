"""Linear layers on oneDNN: torch's own numbers and derivatives, from the size on where they go there."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metarl import generator, products

SIZES = [(96, 128, 96), (1, 1024, 1030), (5000, 70, 3)]  # rows, inputs, outputs


def operands(rows: int, inputs: int, outputs: int) -> list[Tensor]:
    """x, W, b and a gradient of the result."""
    rng = generator(0)
    shapes = (rows, inputs), (outputs, inputs), (outputs,), (rows, outputs)
    return [torch.empty(shape).normal_(generator=rng).requires_grad_() for shape in shapes]


def plain(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    y = F.linear(x, weight, bias)
    return torch.relu(y) if relu else y


def twice(function: object, relu: bool, dtype: torch.dtype, given: list[Tensor]) -> list[Tensor]:
    """The result, its gradients, and the gradients of those."""
    x, weight, bias, g = (v.detach().to(dtype).requires_grad_() for v in given)
    y = function(x, weight, bias, relu)  # type: ignore[operator]
    first = torch.autograd.grad(y, (x, weight, bias), g, create_graph=True)
    square = sum((d.square().sum() for d in first), start=torch.zeros((), dtype=dtype))
    return [y, *first, *torch.autograd.grad(square, (x, weight, g))]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_products_and_two_orders_of_derivatives_are_those_of_float64(
    size: tuple[int, int, int], relu: bool
) -> None:
    given = operands(*size)
    if products.ONEDNN is not None:
        assert products.worth(given[0], given[1])
    found = twice(products.affine, relu, torch.float32, given)
    wanted = twice(plain, relu, torch.float64, given)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=2e-5 * theirs.abs().max().item())


def test_layers_of_any_batch_shape_give_what_torchs_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = generator(0)
    layer = torch.nn.utils.skip_init(products.Linear, 64, 80)
    for p in layer.parameters():
        p.data.normal_(generator=rng)
    x = torch.empty(3, 100, 64).normal_(generator=rng)
    wanted = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(products, "ONEDNN", None)  # as in a build of torch without it
    assert torch.equal(layer(x), wanted)


def test_small_products_and_other_precisions_are_torchs() -> None:
    x, weight, bias, _ = operands(8, 16, 4)
    assert not products.worth(x, weight)
    assert torch.equal(products.affine(x, weight, bias), F.linear(x, weight, bias))
    x, weight, *_ = operands(*SIZES[0])
    assert not products.worth(x.double(), weight.double())
