"""Returns, advantages and the baseline against numbers worked out by hand or by another library."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import metarl
from metarl import Rollout, discounted_return, gae, linear_baseline, normalised

fixed = settings(derandomize=True, deadline=None, max_examples=30)


def rollout_of(reward: Tensor, obs: Tensor, terminated: Tensor | None = None) -> Rollout:
    zero = torch.zeros_like(reward)
    ended = torch.zeros_like(reward, dtype=torch.bool) if terminated is None else terminated
    return Rollout(obs, zero[..., None], reward, ended, obs, zero, zero, zero)


def test_advantages_by_hand() -> None:
    reward, value = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 1.5])
    none = torch.zeros(3, dtype=torch.bool)
    # γ = ½, λ = ½: δ = (1 + ½ - ½, 2 + ¾ - 1, 3 + 1 - 1.5) = (1, 1.75, 2.5) with V_3 = 2
    # A_2 = 2.5, A_1 = 1.75 + ¼ 2.5 = 2.375, A_0 = 1 + ¼ 2.375 = 1.59375
    found = gae(reward, value, torch.tensor(2.0), none, 0.5, 0.5)
    assert found.tolist() == [1.59375, 2.375, 2.5]
    # with an end at t = 1 nothing after it counts: δ_1 = 2 - 1 = 1, A_0 = 1 + ¼
    ended = torch.tensor([False, True, True])
    assert gae(reward, value, torch.tensor(2.0), ended, 0.5, 0.5)[:2].tolist() == [1.25, 1.0]


def test_the_value_of_a_reward_of_one_for_ever() -> None:
    # V = 1 + γ V  =>  V = 1 / (1 - 0.9) = 10: with that value the advantage is zero at any λ
    reward, value = torch.ones(7), torch.full((7,), 10.0)
    for lam in (0.0, 0.5, 1.0):
        found = gae(reward, value, torch.tensor(10.0), torch.zeros(7, dtype=torch.bool), 0.9, lam)
        assert torch.allclose(found, torch.zeros(7), atol=1e-5)


@fixed
@given(st.integers(0, 10_000), st.floats(0.5, 1.0))
def test_with_lambda_one_the_advantage_is_the_return_less_the_value(seed: int, gamma: float) -> None:
    rng = metarl.generator(seed)
    reward, value = torch.randn(2, 9, 2, 3, generator=rng, dtype=torch.float64)
    none = torch.zeros(9, 2, 3, dtype=torch.bool)
    found = gae(reward, value, torch.zeros(2, 3, dtype=torch.float64), none, gamma, 1.0)
    assert torch.allclose(found, discounted_return(reward, gamma) - value)


def test_discounted_returns_by_hand() -> None:
    assert discounted_return(torch.tensor([1.0, 2.0, 4.0]), 0.5).tolist() == [3.0, 4.0, 4.0]


def test_the_baseline_is_each_tasks_own_least_squares_fit() -> None:
    """Against numpy, task by task; time counts from each episode's start, and missing steps do not count."""
    rng = metarl.generator(0)
    obs, reward = torch.randn(15, 2, 4, 3, generator=rng), torch.randn(15, 2, 4, generator=rng)
    ended = torch.zeros(15, 2, 4, dtype=torch.bool)
    ended[9:, 1, 2] = True
    reward = reward.masked_fill(torch.cat([ended[:1] & False, ended[:-1]]), 0)
    rollout = rollout_of(reward, obs, ended)
    found = linear_baseline(rollout, 0.9)
    target = discounted_return(reward.double(), 0.9).numpy()
    for task in range(2):
        rows, wanted, places = [], [], []
        for episode in range(4):
            for t in range(15):
                s, tau = obs[t, task, episode].double().numpy(), t / 100
                row = [*s, *s**2, tau, tau**2, tau**3, 1.0]
                places.append((t, episode, row))
                if t == 0 or not ended[t - 1, task, episode]:
                    rows.append(row)
                    wanted.append(target[t, task, episode])
        x, y = np.array(rows), np.array(wanted)
        weights = np.linalg.solve(x.T @ x + 1e-5 * np.eye(x.shape[1]), x.T @ y)
        for t, episode, row in places:
            assert abs(found[t, task, episode].item() - np.dot(row, weights)) < 1e-4


def test_the_baseline_finds_a_return_that_is_linear_in_its_features() -> None:
    time = torch.arange(10.0).view(-1, 1, 1).expand(10, 1, 2)
    rollout = rollout_of(torch.ones(10, 1, 2), time[..., None] / 10)
    # undiscounted, the return to go of a reward of one is 10 - t
    assert torch.allclose(linear_baseline(rollout, 1.0), 10 - time, atol=1e-3)


@fixed
@given(st.integers(0, 10_000))
def test_advantages_are_normalised_within_each_task_over_the_steps_played(seed: int) -> None:
    rng = metarl.generator(seed)
    advantage = 5 * torch.randn(8, 3, 4, generator=rng) + 2
    valid = torch.rand(8, 3, 4, generator=rng) < 0.8
    found = normalised(advantage, valid)
    for task in range(3):
        played = found[:, task][valid[:, task]]
        assert abs(played.mean()) < 1e-5
        assert abs(played.std(correction=0) - 1) < 1e-4
        assert (found[:, task][~valid[:, task]] == 0).all()
    alone = normalised(advantage[:, :1], valid[:, :1])
    assert torch.allclose(alone, found[:, :1], atol=1e-5)
