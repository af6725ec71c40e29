"""Random tabular MDPs: frequencies against their probabilities, and bounds against every policy there is."""

import itertools
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from metarl import ConfigError, TaskError, Tasks, generator
from metarl.envs import FAMILIES, check_family, make, named_tasks

NAME = "tabular-mdp/rl2-2016"
S, A, H = 10, 5, 10
CHANCE = 1e-3  # of a test of frequencies that fails though nothing is wrong; the seeds are fixed
Array = NDArray[np.float64]


def model(family: Any, task: Tasks) -> tuple[Array, Array]:
    """P [S, A, S] and r̄ [S, A] of one task, read from its names."""
    numbers = dict(zip((p.name for p in family.task_space), task.params[0].double().tolist(), strict=True))
    states, actions = range(family.states), range(family.actions)
    p = [[[numbers[f"p_{s}_{a}_{s2}"] for s2 in states] for a in actions] for s in states]
    return np.array(p), np.array([[numbers[f"r_{s}_{a}"] for a in actions] for s in states])


def one(family: Any, split: Any = "test") -> Tasks:
    return Tasks(*(x[:1] for x in family.sample_tasks(None, split, generator(0))))


def steps(family: Any, task: Tasks, episodes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """s, a, r, s' of many episodes of one task by random actions, [H, E] each."""
    rng, rows = generator(1), []
    obs = family.reset(task, episodes, generator(0))
    for _ in range(family.horizon):
        action = torch.randint(family.actions, (1, episodes), generator=rng)
        outcome = family.step(action)
        rows.append((obs.argmax(-1)[0], action[0], outcome.reward[0], outcome.obs.argmax(-1)[0]))
        obs = outcome.obs
    s, a, r, s2 = map(torch.stack, zip(*rows, strict=True))
    return s, a, r, s2


# --- the world


def test_the_sizes_are_those_of_the_paper() -> None:
    family = make(NAME)
    assert (family.horizon, family.action_space) == (H, gym.spaces.Discrete(A))
    assert family.observation_space == gym.spaces.Box(0.0, 1.0, (S,))
    assert len(family.task_space) == S * A * S + S * A
    assert [len(family.sample_tasks(None, split, generator(0)).ids) for split in ("test", "ood")] == [
        1000
    ] * 2


@pytest.mark.parametrize("split", ["test", "ood"])
def test_states_follow_each_other_as_often_as_the_task_says(split: str) -> None:
    family: Any = make(NAME)
    task = one(family, split)
    p, _ = model(family, task)
    s, a, _, s2 = (x.flatten().numpy() for x in steps(family, task, 20_000))
    seen = np.zeros((S, A, S))
    np.add.at(seen, (s, a, s2), 1)
    expected = seen.sum(-1, keepdims=True) * p
    assert seen[p == 0].sum() == 0
    counted = expected > 5  # where the statistic has its limiting distribution
    assert counted.sum() > 100

    def statistic(expected: Array) -> float:
        return float(((seen - expected)[counted] ** 2 / expected[counted]).sum())

    # at most one degree of freedom for each cell, at least S A fewer
    high, low = stats.chi2.ppf(1 - CHANCE, counted.sum()), stats.chi2.ppf(CHANCE, counted.sum() - S * A)
    assert low < statistic(expected) < high
    assert statistic(np.roll(expected, 1, axis=1) + 1e-3) > 10 * high  # the actions' meanings mixed up


def test_rewards_are_normal_around_the_tasks_means() -> None:
    family: Any = make(NAME)
    task = one(family)
    _, mean = model(family, task)
    s, a, r, s2 = (x.flatten().numpy() for x in steps(family, task, 5000))
    noise = r - mean[s, a]
    assert stats.kstest(noise, "norm").pvalue > CHANCE
    for pair in itertools.product(range(S), range(A)):
        here = noise[(s == pair[0]) & (a == pair[1])]
        assert len(here) > 100
        assert abs(here.mean()) < 4.5 / math.sqrt(len(here))  # of 50 pairs, 1 in 3000 worlds has one beyond
    assert abs(np.corrcoef(noise, s2)[0, 1]) < 4 / math.sqrt(len(noise))
    assert abs(np.corrcoef(noise[:-5000], noise[5000:])[0, 1]) < 4 / math.sqrt(len(noise))


def test_where_nothing_is_left_to_chance_states_follow_for_certain() -> None:
    family: Any = make(NAME)
    following = np.random.RandomState(0).randint(S, size=(S, A))
    p = np.eye(S)[following].reshape(1, -1)
    params = torch.tensor(np.concatenate([p, np.zeros((1, S * A))], 1), dtype=torch.float32)
    s, a, _, s2 = (x.numpy() for x in steps(family, Tasks(params, torch.zeros(1).long()), 10_000))
    assert (s[0] == 0).all()
    assert (s2 == following[s, a]).all()
    assert (s[1:] == s2[:-1]).all()


def test_what_is_drawn_in_an_episode_does_not_depend_on_its_actions() -> None:
    family: Any = make(NAME)
    task = one(family)
    _, mean = model(family, task)
    noises = []
    for action in 0, 3:
        obs, noise = family.reset(task, 2, generator(0)), []
        for _ in range(H):
            outcome = family.step(torch.full((1, 2), action))
            noise.append(outcome.reward[0].numpy() - mean[obs.argmax(-1)[0], action])
            obs = outcome.obs
        noises.append(noise)
    np.testing.assert_allclose(noises[0], noises[1], atol=1e-5)


def test_only_the_episodes_asked_for_start_anew() -> None:
    family: Any = make(NAME)
    tasks = family.sample_tasks(3, "test", generator(0))
    family.reset(tasks, 4, generator(0))
    for _ in range(3):
        obs = family.step(torch.ones(3, 4, dtype=torch.int64)).obs
    ended = torch.zeros(3, 4, dtype=torch.bool)
    ended[1, 2] = ended[2, 0] = True
    wanted = obs.clone()
    wanted[1, 2] = wanted[2, 0] = torch.eye(S)[0]
    assert (obs.argmax(-1) != 0).any()
    assert torch.equal(family.restart(ended, tasks, generator(1)), wanted)


# --- tasks


@pytest.mark.parametrize(("split", "concentration"), [("train", 1.0), ("test", 1.0), ("ood", 0.1)])
def test_tasks_are_drawn_as_published_and_sparse_out_of_distribution(
    split: Any, concentration: float
) -> None:
    family: Any = make(NAME)
    tasks = family.sample_tasks(400, split, generator(0))
    p, r = (x.double().numpy() for x in family.model(tasks))
    assert np.allclose(p.sum(-1), 1, atol=1e-5)
    # each probability of a Dirichlet(c, ..., c) is Beta(c, (S - 1) c), and two of them are correlated by -1/9
    beta = stats.beta(concentration, (S - 1) * concentration)
    for s2 in 0, 4, S - 1:
        assert stats.kstest(p[..., s2].ravel(), beta.cdf).pvalue > CHANCE
    assert np.corrcoef(p[..., 0].ravel(), p[..., 7].ravel())[0, 1] == pytest.approx(-1 / 9, abs=0.03)
    assert abs(np.corrcoef(p[:, 0, 0, 0], p[:, 0, 1, 0])[0, 1]) < 4 / math.sqrt(400)
    assert stats.kstest(r.ravel(), stats.norm(1, 1).cdf).pvalue > CHANCE


def test_training_tasks_are_new_at_every_draw_and_have_no_whole() -> None:
    family, rng = make(NAME), generator(0)
    first, second = (family.sample_tasks(3, "train", rng).params for _ in range(2))
    assert not (first[:, None] == second).all(-1).any()
    with pytest.raises(ConfigError, match=r"^the train split is continuous and has no whole: give a number"):
        family.sample_tasks(None, "train", rng)


def test_a_task_can_be_named_and_what_is_not_named_is_the_mean() -> None:
    family: Any = make(NAME)
    tasks = named_tasks(family, [{"p_2_1_0": 0.0, "p_2_1_9": 0.2, "r_9_4": -3.0}, {}])
    p, r = family.model(tasks)
    assert p[0, 2, 1].tolist() == pytest.approx([0.0] + [0.1] * 8 + [0.2])
    assert (p[1] == 0.1).all()
    assert r[0, 9, 4] == -3
    assert (r[1] == 1).all()
    # of the mean task nothing but the number of steps matters
    assert family.bounds(Tasks(tasks.params[1:], tasks.ids[1:])).oracle.item() == pytest.approx(H, abs=1e-4)


def test_a_task_that_is_no_mdp_is_refused() -> None:
    family = make(NAME)
    tasks = named_tasks(family, [{}, {"p_3_1_7": 0.6}])
    message = r"^the sum of p_3_1_0 to p_3_1_9 is 1\.5; allowed: 1, as of all probabilities$"
    for use in lambda: family.reset(tasks, 1, generator(0)), lambda: family.bounds(tasks):
        with pytest.raises(TaskError, match=message):
            use()
    with pytest.raises(TaskError, match=r"^p_3_1_7 is 1\.5; allowed: 0 to 1$"):
        named_tasks(family, [{"p_3_1_7": 1.5}])


# --- bounds


def tiny() -> Any:
    """Two states, two actions, three steps: 64 policies, one action for each step and state."""
    kind = type("Tiny", (FAMILIES[NAME],), {"name": "tiny", "states": 2, "actions": 2, "horizon": 3})
    return kind(torch.device("cpu"))


def expected_return(p: Array, r: Array, policy: tuple[int, ...], t: int = 0, s: int = 0) -> float:
    """Of a policy of the three steps and two states, by going along every path."""
    if t == 3:
        return 0.0
    a = policy[2 * t + s]
    later = sum(p[s, a, s2] * expected_return(p, r, policy, t + 1, s2) for s2 in range(2))
    return float(r[s, a]) + float(later)


def test_bounds_are_those_of_all_policies() -> None:
    # a path meets each (step, state) at most once, so that the mean over policies is the uniformly random one
    family = tiny()
    check_family(family)
    for i in range(5):
        task = family.sample_tasks(1, "train", generator(i))
        p, r = model(family, task)
        returns = [expected_return(p, r, policy) for policy in itertools.product((0, 1), repeat=6)]
        bounds = family.bounds(task)
        assert bounds.floor.item() == pytest.approx(np.mean(returns), abs=1e-5)
        assert bounds.oracle.item() == pytest.approx(np.max(returns), abs=1e-5)


def best_actions(p: Array, r: Array) -> Array:
    """The optimal action at each step and state, [H, S]."""
    value, policy = np.zeros(S), []
    for _ in range(H):
        q = r + p @ value
        value = q.max(-1)
        policy.append(q.argmax(-1))
    return np.array(policy[::-1])


def test_bounds_are_what_one_gets_on_average() -> None:
    family: Any = make(NAME)
    task, episodes = one(family), 20_000
    bounds, plan = family.bounds(task), torch.as_tensor(best_actions(*model(family, task)))
    chance = steps(family, task, episodes)[2].sum(0)
    best, obs = torch.zeros(episodes), family.reset(task, episodes, generator(0))
    for t in range(H):
        outcome = family.step(plan[t][obs.argmax(-1)])
        best, obs = best + outcome.reward[0], outcome.obs
    for returns, bound in (chance, bounds.floor), (best, bounds.oracle):
        assert abs(returns.mean() - bound) < 4 * returns.std() / math.sqrt(episodes)
    assert bounds.oracle > bounds.floor + 5


def test_over_all_tasks_a_random_step_pays_one() -> None:
    family = make(NAME)
    floor = family.bounds(family.sample_tasks(20_000, "train", generator(0))).floor
    assert abs(floor.mean() - H) < 4 * floor.std() / math.sqrt(20_000)
