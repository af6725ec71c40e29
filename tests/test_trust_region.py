"""Conjugate gradient and line search on problems with known answers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import metarl
from metarl import conjugate_gradient, largest_step, line_search


@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_conjugate_gradient_solves_in_as_many_steps_as_there_are_unknowns(seed: int, size: int) -> None:
    rng = metarl.generator(seed)
    root = torch.randn(size, size, generator=rng, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(size, dtype=torch.float64)
    b = torch.randn(size, generator=rng, dtype=torch.float64)
    x, image = conjugate_gradient(lambda v: matrix @ v, b, 3 * size, tolerance=1e-24)
    assert torch.allclose(matrix @ x, b, atol=1e-8)
    assert torch.allclose(image, matrix @ x, atol=1e-8)


def test_an_unfinished_solution_still_knows_its_image() -> None:
    matrix = torch.diag(torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64))
    x, image = conjugate_gradient(lambda v: matrix @ v, torch.ones(3, dtype=torch.float64), 2)
    assert not torch.allclose(matrix @ x, torch.ones(3, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(image, matrix @ x)


def test_the_solver_agrees_with_scipys() -> None:
    sparse = pytest.importorskip("scipy.sparse.linalg")
    rng = metarl.generator(0)
    root = torch.randn(20, 20, generator=rng, dtype=torch.float64)
    matrix, b = root @ root.T + torch.eye(20), torch.randn(20, generator=rng, dtype=torch.float64)
    theirs, _ = sparse.cg(matrix.numpy(), b.numpy(), maxiter=7, rtol=0.0)
    ours, _ = conjugate_gradient(lambda v: matrix @ v, b, 7, tolerance=0.0)
    assert torch.allclose(ours, torch.from_numpy(theirs))


def test_the_largest_step_ends_on_the_boundary() -> None:
    matrix, direction = torch.diag(torch.tensor([2.0, 8.0])), torch.tensor([3.0, -1.0])
    step = largest_step(direction, matrix @ direction, 0.01)
    assert 0.5 * step @ matrix @ step == pytest.approx(0.01)


def test_a_search_takes_the_first_point_that_improves_within_the_region() -> None:
    tried = []

    def evaluate(scale: float) -> tuple[float, float]:
        tried.append(scale)
        return 0.5, 0.02 * scale  # the divergence is allowed from a scale of ½ on

    found = line_search(evaluate, 0.01, shrink=0.7)
    assert tried == pytest.approx([1.0, 0.7, 0.49])
    assert found.scale == pytest.approx(0.49)
    assert found.kl == pytest.approx(0.0098)


@pytest.mark.parametrize("point", [(-0.1, 0.0), (math.nan, 0.0), (0.1, math.nan), (0.1, 1.0)])
def test_a_search_without_a_good_point_stays_where_it_is(point: tuple[float, float]) -> None:
    assert line_search(lambda scale: point, 0.01) == (0.0, 0.0, 0.0)
