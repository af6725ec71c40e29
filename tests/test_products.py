"""Linear layers on oneDNN: torch's own numbers and derivatives, from the size on where they go there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metarl import Sac, SacConfig, generator, linear, products

pytestmark = pytest.mark.skipif(products.ONEDNN is None, reason="this build of torch has no oneDNN")
SIZES = [(256, 280, 240), (1, 4100, 4100), (80_000, 70, 3)]  # rows, inputs, outputs


def normal(*shape: int) -> Tensor:
    return torch.empty(shape).normal_(generator=generator(sum(shape)))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what oneDNN was given."""
    seen = list[tuple[int, ...]]()
    inner: Any = products.ONEDNN

    def counted(x: Tensor, *rest: Any) -> Tensor:
        seen.append(tuple(x.shape))
        found: Tensor = inner(x, *rest)
        return found

    monkeypatch.setattr(products, "ONEDNN", counted)
    return seen


def twice(function: Callable[..., Tensor], dtype: torch.dtype, *given: Tensor) -> list[Tensor]:
    """The result, its gradients, and the gradients of those."""
    x, weight, bias, g = (v.to(dtype).requires_grad_() for v in given)
    y = function(x, weight, bias)
    first = torch.autograd.grad(y, (x, weight, bias), g, create_graph=True)
    square = sum((d.square().sum() for d in first), start=torch.zeros((), dtype=dtype))
    return [y, *first, *torch.autograd.grad(square, (x, weight, g))]


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=2e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("size", SIZES)
def test_products_and_two_orders_of_derivatives_are_those_of_float64(
    size: tuple[int, int, int], calls: list[tuple[int, ...]]
) -> None:
    rows, inputs, outputs = size
    given = normal(rows, inputs), normal(outputs, inputs), normal(outputs), normal(rows, outputs)
    found = twice(products.affine, torch.float32, *given)
    assert calls[0] == (rows, inputs)
    assert (rows, outputs) in calls, "the gradient of x"
    assert (outputs, rows) in calls, "the gradient of W"
    for ours, theirs in zip(found, twice(F.linear, torch.float64, *given), strict=True):
        close(ours, theirs)


def test_operands_may_lie_in_memory_as_they_like(calls: list[tuple[int, ...]]) -> None:
    x, weight = normal(300, 400, 2)[..., 0], normal(300, 200).T
    for bias in (normal(200, 2)[:, 1], normal(1).expand(200)):
        close(products.affine(x.T, weight, bias), F.linear(x.T.double(), weight.double(), bias.double()))
    row, weight = normal(300).expand(400, 300), normal(200, 300)
    close(products.affine(row, weight), row.double() @ weight.double().T)
    assert len(calls) == 3


def test_what_is_not_a_number_stays_none(calls: list[tuple[int, ...]]) -> None:
    sac = Sac(40, 4, SacConfig(hidden=(256, 256)), generator(0))
    x = normal(400, 40)
    x[7] = torch.nan
    q = sac.critics(x, normal(400, 4))
    assert calls
    assert q[:, 7].isnan().all()
    assert int(q.isnan().sum()) == 2


@pytest.mark.parametrize("learn", [True, False])
def test_large_critics_are_those_of_float64(learn: bool, calls: list[tuple[int, ...]]) -> None:
    sac = Sac(40, 4, SacConfig(hidden=(256, 256)), generator(0))
    x, action = normal(400, 40), normal(400, 4).requires_grad_()
    q = sac.critics(x, action, learn)
    found = torch.autograd.grad(q.square().sum(), action)[0]
    assert len(calls) >= 4, "of both critics, forwards and backwards"
    sac.double()
    twin = action.detach().double().requires_grad_()
    wanted = sac.critics(x.double(), twin, learn)
    close(q, wanted)
    close(found, torch.autograd.grad(wanted.square().sum(), twin)[0])


@pytest.mark.parametrize("shape", [(3, 2), (), (1,)])
def test_layers_take_any_batch_shape(
    shape: tuple[int, ...], calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = torch.nn.utils.skip_init(products.Linear, 4100, 4100)
    layer.weight.data, layer.bias.data = normal(4100, 4100), normal(4100)
    x = normal(*shape, 4100)
    found = layer(x)
    assert len(calls) == 1
    monkeypatch.setattr(products, "ONEDNN", None)  # as in a build of torch without it
    close(found, layer(x).double())


def test_layers_work_under_torch_func() -> None:
    layer, x = linear(256, 256, generator(0)), normal(2, 300, 256)
    params = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(x: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(layer, params, (x,))
        return found.square().sum()

    found = torch.vmap(torch.func.grad(loss))(x)
    torch.testing.assert_close(found, 2 * layer(x).detach() @ layer.weight.detach())


def test_small_products_and_other_precisions_are_torchs(calls: list[tuple[int, ...]]) -> None:
    x, weight, bias = normal(8, 16), normal(4, 16), normal(4)
    assert torch.equal(products.affine(x, weight, bias), F.linear(x, weight, bias))
    x, weight = normal(300, 300).double(), normal(300, 300).double()
    assert torch.equal(products.affine(x, weight), x @ weight.T)
    assert not calls
