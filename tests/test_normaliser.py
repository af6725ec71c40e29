"""Running statistics against those of all rows at once, and Adam against torch's, saved in the middle."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from metarl import Adam, Normaliser, generator

CPU = torch.device("cpu")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 100))
def test_running_statistics_are_those_of_all_rows_at_once(sizes: list[int], seed: int) -> None:
    rows = 5 + 3 * torch.randn(sum(sizes), 2, generator=generator(seed), dtype=torch.float64)
    rows[:, 1] = 7.0  # never changes
    ours = Normaliser(2, CPU)
    assert torch.equal(ours(rows), rows)
    for part in rows.split(sizes):
        ours.update(part)
    assert torch.allclose(ours.mean.double(), rows.mean(0), rtol=1e-6)
    assert torch.allclose(ours.exact_variance, rows.var(0, correction=0), rtol=1e-9, atol=1e-12)
    assert ours.std[1] == 1
    assert torch.allclose(ours.inverse(ours(rows)), rows, rtol=1e-6)


def test_a_constant_offset_far_from_zero_does_not_spoil_the_variance() -> None:
    ours, rows = Normaliser(1, CPU), 1e6 + torch.randn(4000, 1, generator=generator(0), dtype=torch.float64)
    for part in rows.split(100):
        ours.update(part)
    assert ours.exact_variance.item() == pytest.approx(rows.var(correction=0).item(), rel=1e-6)


def test_adam_is_torchs_and_continues_from_its_saved_state() -> None:
    start = torch.randn(4, generator=generator(0))
    gradients = torch.randn(6, 4, generator=generator(1))
    theirs = nn.Parameter(start.clone())
    reference = torch.optim.Adam([theirs], lr=0.1, eps=1e-5)
    ours = nn.Parameter(start.clone())
    optimizer = Adam([ours], max_grad_norm=1e9)
    for k, gradient in enumerate(gradients):
        theirs.grad = gradient.clone()
        reference.step()
        norm = optimizer.step([gradient.clone()], 0.1)
        assert norm == pytest.approx(gradient.norm().item())
        assert torch.allclose(ours, theirs, atol=1e-7)
        if k == 2:  # through a file, into another
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            ours = nn.Parameter(ours.detach().clone())
            optimizer = Adam([ours], max_grad_norm=1e9)
            optimizer.load_state_dict(torch.load(file, weights_only=True))


def test_long_gradients_are_clipped() -> None:
    one, two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    short, long = Adam([one], max_grad_norm=0.5, eps=1.0), Adam([two], max_grad_norm=0.5, eps=1.0)
    short.step([torch.tensor([0.3, 0.4])], 0.1)
    assert long.step([torch.tensor([30.0, 40.0])], 0.1) == pytest.approx(50)
    assert torch.allclose(one, two, atol=1e-6)
