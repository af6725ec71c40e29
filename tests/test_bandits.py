"""Bandits against their definition: what arms pay, which tasks there are, and what can be earned in them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import ConfigError, Tasks, generator
from metarl.envs import make, tasks_of

KINDS = {"bernoulli": 0.5, "gaussian": 1.0}  # the standard deviation of a reward whose mean is a half
ARMS = (5, 10, 50)
NAMES = [f"bandit/{kind}-k{k}" for kind in KINDS for k in ARMS]
SMALL = [f"bandit/{kind}-k5" for kind in KINDS]


def pulled(name: str, tasks: Tasks, action: Tensor, seed: int = 0) -> Tensor:
    """The rewards of one pull of each, actions [N, E] -> [N, E]."""
    family = make(name)
    family.reset(tasks, action.shape[1], generator(seed))
    return family.step(action).reward


@pytest.mark.parametrize("name", NAMES)
def test_a_bandit_says_what_it_is(name: str) -> None:
    family, k = make(name), int(name.split("-k")[1])
    assert (family.horizon, int(family.action_space.n)) == (1, k)
    assert family.summary.startswith(f"{k} arms")
    assert [p.name for p in family.task_space] == [f"arm_{a}" for a in range(k)]


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_pays_its_own_mean(name: str) -> None:
    family, pulls = make(name), 4000
    k = int(family.action_space.n)
    tasks = family.sample_tasks(4, "test", generator(1))
    reward = pulled(name, tasks, torch.arange(k).repeat(4, pulls)).view(4, pulls, k)
    error = (reward.mean(1) - tasks.params).abs() * math.sqrt(pulls)
    assert (error < 5 * KINDS[name.split("/")[1].split("-")[0]]).all()


def test_a_bernoulli_arm_pays_one_or_nothing() -> None:
    tasks = tasks_of(make(SMALL[0]), [[0, 1, 0.3, 0.5, 0.5]])
    reward = pulled(SMALL[0], tasks, torch.arange(5).repeat(1, 1000)).view(1000, 5)
    assert set(reward.unique().tolist()) == {0.0, 1.0}
    assert not reward[:, 0].any()
    assert reward[:, 1].all()


def test_the_noise_of_a_gaussian_arm_is_standard_normal() -> None:
    family, n = make(SMALL[1]), 100_000
    tasks = family.sample_tasks(1, "test", generator(1))
    noise = pulled(SMALL[1], tasks, torch.arange(5).repeat(1, n // 5)) - tasks.params.repeat(1, n // 5)
    moments = [(noise**k).mean().item() for k in (1, 2, 3, 4)]
    wanted, spread = np.array([0, 1, 0, 3]), np.array([1, 2, 15, 96])  # E[x^k] and Var[x^k] of N(0, 1)
    assert (np.abs(moments - wanted) < 5 * np.sqrt(spread / n)).all()


@pytest.mark.parametrize("name", SMALL)
def test_what_an_arm_pays_does_not_depend_on_what_others_pull(name: str) -> None:
    tasks = make(name).sample_tasks(3, "test", generator(1))
    some, others = torch.zeros(3, 4, dtype=torch.int64), torch.full((3, 4), 2)
    others[1, 3] = 0
    assert pulled(name, tasks, some)[1, 3] == pulled(name, tasks, others)[1, 3]


@pytest.mark.parametrize("name", SMALL)
def test_nothing_is_observed_and_nothing_ends_but_by_the_horizon(name: str) -> None:
    family = make(name)
    tasks = family.sample_tasks(2, "test", generator(0))
    obs = family.reset(tasks, 3, generator(0))
    outcome = family.step(torch.ones(2, 3, dtype=torch.int64))
    assert obs.shape == (2, 3, 1)
    assert not obs.any()
    assert not outcome.obs.any()
    assert torch.equal(outcome.target, tasks.params[:, 1:2].expand(-1, 3))  # the arm's mean, for training
    assert not outcome.terminated.any()


@pytest.mark.parametrize("name", SMALL)
def test_training_means_are_uniform(name: str) -> None:
    means = make(name).sample_tasks(10_000, "train", generator(0)).params
    counts = torch.stack([column.histc(10, 0, 1) for column in means.T])
    assert ((counts - 1000).abs() < 5 * math.sqrt(900)).all()
    together = means.T.corrcoef() - torch.eye(5)
    assert (together.abs() < 5 / math.sqrt(10_000)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_pools_are_a_thousand_tasks_and_in_ood_arms_are_close(name: str) -> None:
    family, k = make(name), int(name.split("-k")[1])
    test, ood = (family.sample_tasks(None, split, generator(0)).params for split in ("test", "ood"))
    assert test.shape == ood.shape == (1000, k)
    assert abs(test.mean() - 0.5) < 5 * math.sqrt(1 / 12 / test.numel())
    assert ((ood >= 0.45) & (ood <= 0.55)).all()
    assert ood.max() - ood.min() > 0.09
    with pytest.raises(ConfigError, match="the train split is continuous"):
        family.sample_tasks(None, "train", generator(0))


@pytest.mark.parametrize("name", SMALL)
def test_the_bounds_are_any_arm_and_the_best_one(name: str) -> None:
    family = make(name)
    tasks = tasks_of(family, [[0.1, 0.2, 0.9, 0.3, 0.5]] * 2)  # any: 2 / 5 = 0.4
    bounds = family.bounds(tasks)
    torch.testing.assert_close(bounds.floor, torch.full((2,), 0.4))
    torch.testing.assert_close(bounds.oracle, torch.full((2,), 0.9))
    chance = torch.randint(5, (2, 50_000), generator=generator(3))
    for action, bound in (chance, bounds.floor), (torch.full_like(chance, 2), bounds.oracle):
        reward = pulled(name, tasks, action)
        assert ((reward.mean(1) - bound).abs() < 5 * reward.std(1) / math.sqrt(50_000)).all()


@pytest.mark.parametrize("k", ARMS)
def test_the_best_of_k_uniform_arms_is_worth_k_over_k_plus_one(k: int) -> None:
    family = make(f"bandit/bernoulli-k{k}")
    oracle = family.bounds(family.sample_tasks(None, "test", generator(0))).oracle
    # the largest of k uniform numbers is Beta(k, 1): mean k / (k + 1), variance k / (k + 1)² / (k + 2)
    error = abs(oracle.mean().item() - k / (k + 1))
    assert error < 5 * math.sqrt(k / (k + 1) ** 2 / (k + 2) / 1000)
