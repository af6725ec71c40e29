"""Distributions against torch's own, and samples against their probabilities."""

import math
from typing import Any

import pytest
import torch
from gymnasium.spaces import Box, Discrete

from metarl import Categorical, Gaussian, Head, generator


def test_categorical_quantities_are_those_of_torch() -> None:
    p, q = (torch.randn(5, 4, generator=generator(s)) for s in (0, 1))
    action = torch.tensor([0, 3, 1, 2, 2])
    ours, theirs = Categorical.of(p), torch.distributions.Categorical(logits=p)
    assert torch.allclose(ours.log_prob(action), theirs.log_prob(action))
    assert torch.allclose(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode, p.argmax(-1))
    wanted = torch.distributions.kl_divergence(theirs, torch.distributions.Categorical(logits=q))
    assert torch.allclose(ours.kl(Categorical.of(q)), wanted, atol=1e-6)


def test_categorical_samples_have_their_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    n = 40_000
    drawn = Categorical.of(probabilities.log().expand(n, 4)).sample(generator(0))
    counts = torch.bincount(drawn, minlength=4)
    chi2 = ((counts - n * probabilities) ** 2 / (n * probabilities)).sum().item()
    assert chi2 < 16.27  # 0.1 % of a chi-square of 3 degrees


def test_gaussian_entropy_is_that_of_torch_and_samples_have_their_moments() -> None:
    mean, log_std = torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0])
    ours = Gaussian(mean.expand(20_000, 2), log_std)
    assert torch.allclose(ours.entropy()[0], torch.distributions.Normal(mean, log_std.exp()).entropy().sum())
    drawn = ours.sample(generator(0))
    assert torch.allclose(drawn.mean(0), mean, atol=4 * math.exp(0.5) / math.sqrt(20_000))
    assert torch.allclose(drawn.std(0), log_std.exp(), rtol=0.03)


@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2,))])
def test_an_untrained_head_has_next_to_no_preference(space: Any) -> None:
    policy = Head(6, space, generator(0), initial_std=0.5)(torch.randn(9, 6, generator=generator(1)))
    if isinstance(policy, Categorical):
        assert torch.allclose(policy.log_probs.exp(), torch.full((9, 3), 1 / 3), atol=0.02)
    else:
        assert isinstance(policy, Gaussian)
        assert policy.mean.abs().max() < 0.1
        assert torch.allclose(policy.log_std.exp(), torch.full((9, 2), 0.5))
