"""Goal navigation against the published definitions, re-implemented here in plain numpy."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor

from metarl import Act, Rollout, Step, Tasks, collect, generator, opening
from metarl.envs import make, named_tasks

Array = NDArray[np.float64]
MAML, PEARL = "navigation/maml2017", "navigation/pearl2019"
SPARSE_PEARL, SPARSE_VARIBAD = "navigation-sparse/pearl2019", "navigation-sparse/varibad2020"
NAMES = (MAML, PEARL, SPARSE_PEARL, SPARSE_VARIBAD)
FIXED_START = (MAML, SPARSE_PEARL, SPARSE_VARIBAD)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """In numpy's precision, in which the published code computes, nothing differs by rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Reflex(torch.nn.Module):
    """Acts by a function of the observation, or of nothing but the time."""

    def __init__(self, action: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self.action = action

    def act(self, belief: int, step: Step, explore: bool) -> tuple[Act, int]:
        zero = torch.zeros_like(step.reward)
        return Act(self.action(belief, step.obs), zero, zero), belief + 1


def play(family: Any, tasks: Tasks, episodes: int, action: Callable[[int, Tensor], Tensor]) -> Rollout:
    obs = family.reset(tasks, episodes, generator(0))
    agent: Any = Reflex(action)
    return collect(family, agent, 0, opening(family, obs, ()))[0]


def stay(t: int, obs: Tensor) -> Tensor:
    return torch.zeros_like(obs)


def towards(goal: Tensor) -> Callable[[int, Tensor], Tensor]:
    """Full speed along each axis until it is done, for goals [N, 2]."""
    return lambda t, obs: (goal[:, None] - obs) / 0.1


def published_episode(name: str, start: Array, goal: Array, actions: Array) -> dict[str, Array]:
    """One episode, as the convention's own code computes it."""
    position, over, rows = start, False, []
    for action in actions:
        position = position + 0.1 * np.clip(action, -1, 1)
        dx, dy = position - goal
        distance = np.sqrt(dx**2 + dy**2)
        sparse = 1 - distance if distance <= 0.2 else 0.0
        reward = -distance if name in (MAML, PEARL) else sparse
        dense = -distance if name == SPARSE_PEARL else 0.0
        rows.append((*position, 0.0 if over else reward, dense))
        over = over or (name == MAML and abs(dx) < 0.01 and abs(dy) < 0.01)
        rows[-1] += (float(over),)
    table = np.array(rows)
    return {"obs": table[:, :2], "reward": table[:, 2], "target": table[:, 3], "over": table[:, 4]}


def goal_of(values: Array) -> Array:
    """A task's goal on the plane, from its numbers."""
    return values if len(values) == 2 else np.array([math.cos(values[0]), math.sin(values[0])])


@pytest.mark.parametrize("name", NAMES)
@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    u=arrays(float, 2, elements=st.floats(0, 1)), actions=arrays(float, (20, 2), elements=st.floats(-2, 2))
)
def test_any_episode_is_the_published_one_and_none_beats_the_oracle(
    name: str, u: Array, actions: Array
) -> None:
    family = make(name)
    family.horizon = 20
    values = np.array([p.low + x * (p.high - p.low) for p, x in zip(family.task_space, u, strict=False)])
    task = named_tasks(family, [dict(zip((p.name for p in family.task_space), values, strict=True))])
    goal = goal_of(values)
    homing = torch.as_tensor(goal)[None]
    for plan in lambda t, obs: torch.as_tensor(actions[t]).expand(1, 2, 2), towards(homing):
        rollout = play(family, task, 2, plan)
        for e in range(2):
            start = rollout.obs[0, 0, e].numpy()
            wanted = published_episode(name, start, goal, rollout.action[:, 0, e].numpy())
            np.testing.assert_allclose(rollout.next_obs[:, 0, e], wanted["obs"], atol=1e-12)
            np.testing.assert_allclose(rollout.reward[:, 0, e], wanted["reward"], atol=1e-12)
            np.testing.assert_allclose(rollout.target[:, 0, e], wanted["target"], atol=1e-12)
            assert rollout.terminated[:, 0, e].tolist() == wanted["over"].astype(bool).tolist()
        if name in FIXED_START:
            assert (rollout.returns <= family.bounds(task).oracle + 1e-9).all()


@pytest.mark.parametrize(("name", "horizon"), [*zip(NAMES, (100, 20, 20, 100), strict=True)])
def test_the_horizon_is_the_published_one(name: str, horizon: int) -> None:
    assert make(name).horizon == horizon


def test_the_forty_test_goals_are_those_of_maml() -> None:
    np.random.seed(1)  # noqa: NPY002  what cbfinn/maml_rl's test script does
    wanted = np.random.uniform(-0.5, 0.5, (40, 2))  # noqa: NPY002
    assert np.array_equal(make(MAML).sample_tasks(None, "test", generator(0)).params, wanted)


def test_the_pools_of_pearls_dense_points_are_the_first_eighty_and_the_last_twenty() -> None:
    family, rng = make(PEARL), np.random.RandomState(1337)
    goals = [[rng.uniform(-1.0, 1.0), rng.uniform(-1.0, 1.0)] for _ in range(100)]
    assert np.array_equal(family.sample_tasks(None, "train", generator(0)).params, goals[:80])
    assert np.array_equal(family.sample_tasks(None, "test", generator(0)).params, goals[80:])


def test_the_pools_of_pearls_sparse_points_are_a_shuffled_half_circle() -> None:
    family: Any = make(SPARSE_PEARL)
    angles = np.linspace(0, np.pi, num=100)
    goals = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.random.RandomState(1337).shuffle(goals)
    for split, wanted in ("train", goals[:80]), ("test", goals[80:]):
        found = family.goals(family.sample_tasks(None, split, generator(0)))
        np.testing.assert_allclose(found, wanted, atol=1e-15)


@pytest.mark.parametrize(("name", "low", "high"), [(MAML, -0.5, 0.5), (SPARSE_VARIBAD, 0.0, math.pi)])
def test_continuous_training_tasks_fill_their_range_evenly(name: str, low: float, high: float) -> None:
    u = (make(name).sample_tasks(4000, "train", generator(0)).params - low) / (high - low)
    assert ((u >= 0) & (u <= 1)).all()
    counts = torch.stack([column.histc(10, 0, 1) for column in u.T])
    assert ((counts - 400).abs() < 100).all()  # 5 standard deviations of a binomial, √(4000 · 0.1 · 0.9) = 19


@pytest.mark.parametrize("name", NAMES)
def test_tasks_out_of_distribution_lie_where_none_is_trained(name: str) -> None:
    family = make(name)
    tasks = family.sample_tasks(None, "ood", generator(0))
    low = torch.tensor([p.train_low for p in family.task_space])
    high = torch.tensor([p.train_high for p in family.task_space])
    assert ((tasks.params < low) | (tasks.params > high)).any(1).all()


def test_the_bounds_on_the_forty_goals_are_the_known_ones() -> None:
    family = make(MAML)
    bounds = family.bounds(family.sample_tasks(None, "test", generator(0)))
    assert bounds.floor.mean().item() == pytest.approx(-40.08, abs=0.005)
    assert bounds.oracle.mean().item() == pytest.approx(-0.544, abs=0.0005)


@pytest.mark.parametrize(("horizon", "wanted"), [(20, 13.4), (60, 53.4), (100, 93.4)])
def test_the_sparse_oracle_is_the_known_one(horizon: int, wanted: float) -> None:
    family = make(SPARSE_PEARL)
    family.horizon = horizon
    angles = torch.linspace(0, math.pi, 401).unsqueeze(1)
    oracle = family.bounds(Tasks(angles, torch.arange(401))).oracle
    assert oracle.mean().item() == pytest.approx(wanted, abs=0.05)
    if horizon == 20:
        assert (oracle.min().item(), oracle.max().item()) == pytest.approx((11.9, 14.8), abs=0.06)


@pytest.mark.parametrize("name", FIXED_START)
def test_the_bounds_are_what_one_gets_who_plays_them(name: str) -> None:
    family: Any = make(name)
    tasks = family.sample_tasks(None, "test", generator(0))
    bounds = family.bounds(tasks)
    still = play(family, tasks, 1, stay).returns[:, 0]
    best = play(family, tasks, 1, towards(family.goals(tasks))).returns[:, 0]
    torch.testing.assert_close(still, bounds.floor, rtol=0, atol=1e-9)
    torch.testing.assert_close(best, bounds.oracle, rtol=0, atol=1e-9)


def test_the_bounds_from_random_starts_are_what_one_gets_on_average() -> None:
    family: Any = make(PEARL)
    tasks = family.sample_tasks(None, "test", generator(0))
    bounds = family.bounds(tasks)
    for plan, bound in (stay, bounds.floor), (towards(family.goals(tasks)), bounds.oracle):
        returns = play(family, tasks, 4000, plan).returns
        error = 5 * returns.std(1) / math.sqrt(4000)
        assert ((returns.mean(1) - bound).abs() < error).all()


def test_an_episode_ends_inside_the_box_around_the_goal_and_only_there() -> None:
    family = make(MAML)
    offsets = [(0.0099, 0.0), (0.0, -0.0099), (0.0099, 0.0099), (0.0101, 0.0), (0.0, 0.0101), (0.5, 0.0)]
    ends = [True, True, True, False, False, False]
    tasks = named_tasks(family, [{"goal_x": x, "goal_y": y} for x, y in offsets])
    rollout = play(family, tasks, 1, stay)
    assert rollout.terminated[0, :, 0].tolist() == ends
    # standing still: the first step is paid for, and what follows its end is not
    first = -torch.tensor(offsets).norm(dim=1)
    torch.testing.assert_close(rollout.reward[0, :, 0], first)
    torch.testing.assert_close(rollout.returns[:3, 0], first[:3])
    torch.testing.assert_close(rollout.returns[3:, 0], 100 * first[3:])


@pytest.mark.parametrize("name", [PEARL, SPARSE_PEARL, SPARSE_VARIBAD])
def test_the_other_conventions_have_no_end_but_the_horizon(name: str) -> None:
    family: Any = make(name)
    tasks = family.sample_tasks(None, "test", generator(0))
    assert not play(family, tasks, 2, towards(family.goals(tasks))).terminated.any()


@pytest.mark.parametrize("name", NAMES)
def test_actions_are_scaled_by_a_tenth_and_clipped(name: str) -> None:
    family = make(name)
    tasks = family.sample_tasks(3, "test", generator(0))
    rollout = play(family, tasks, 1, lambda t, obs: torch.tensor([5.0, -0.5]).expand_as(obs))
    moved = rollout.next_obs - rollout.obs
    torch.testing.assert_close(moved, torch.tensor([0.1, -0.05]).expand_as(moved))


def test_starts_are_the_origin_or_anywhere_in_the_square() -> None:
    for name in FIXED_START:
        family = make(name)
        assert not family.reset(family.sample_tasks(2, "test", generator(0)), 3, generator(0)).any()
    family = make(PEARL)
    start = family.reset(family.sample_tasks(20, "test", generator(0)), 200, generator(0)).flatten(0, 1)
    assert ((start >= -1) & (start <= 1)).all()
    counts = torch.stack([column.histc(10, -1, 1) for column in start.T])
    assert ((counts - 400).abs() < 100).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_observation_is_the_position_and_never_tells_the_goal(name: str) -> None:
    family = make(name)
    tasks = family.sample_tasks(2, "test", generator(0))
    one, other = (Tasks(*(x[[i, i]] for x in tasks)) for i in (0, 1))
    actions = torch.randn(family.horizon, 2, 3, 2, generator=generator(1))
    a, b = (play(family, t, 3, lambda t, obs: actions[t]) for t in (one, other))
    assert a.obs.shape[-1] == 2
    assert torch.equal(a.obs, b.obs)
    assert torch.equal(a.next_obs, b.next_obs)
