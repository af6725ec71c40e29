"""The batched vector environment does, step by step, what Gymnasium's own does over single environments."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from metarl import ConfigError, TaskError, generator
from metarl.envs import VectorView, gymnasium_id, make

FIXED_START = "navigation/maml2017"  # starts at the origin, and ends within 0.01 of the goal
POOLED = "navigation/pearl2019"  # 80 training tasks, 20 steps, starts anywhere
ROBOT = "half-cheetah-vel/pearl2019"
GOALS = [(0.3, 0.0), (0.0, -0.2), (0.9, 0.5), (-0.1, 0.1), (0.0, 0.4)]
LIMIT = 6  # steps, so that some episodes reach their goal, and others their end


def vector(**settings: Any) -> Any:
    return gym.make_vec(gymnasium_id(FIXED_START), num_envs=len(GOALS), **settings)


def same(ours: Any, theirs: Any) -> None:
    """Infos that are equal: the same keys, arrays and masks, all the way down."""
    if isinstance(theirs, dict):
        assert sorted(ours) == sorted(theirs)
        for key in theirs:
            same(ours[key], theirs[key])
    elif isinstance(theirs, np.ndarray) and theirs.dtype == object:
        assert [x is None for x in ours] == [x is None for x in theirs]
        for x, y in zip(ours, theirs, strict=True):
            same(x, y)
    elif theirs is not None:
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def towards(obs: np.ndarray, slip: np.random.Generator) -> np.ndarray:
    """Straight to the goals, so fast as one can, but for a few random steps."""
    straight = np.clip((np.array(GOALS) - obs) / 0.1, -1, 1)
    return np.where(slip.random((len(obs), 1)) < 0.2, 0.5, straight).astype(np.float32)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_every_step_is_that_of_gymnasiums_own_vector_environment(mode: AutoresetMode) -> None:
    ours = vector(task=GOALS, max_episode_steps=LIMIT, autoreset_mode=mode)
    single = [
        lambda goal=goal: gym.make(gymnasium_id(FIXED_START), task=goal, max_episode_steps=LIMIT)
        for goal in GOALS
    ]
    theirs = SyncVectorEnv(single, autoreset_mode=mode)
    assert ours.metadata["autoreset_mode"] is mode
    for name in "single_observation_space", "single_action_space", "observation_space", "action_space":
        assert getattr(ours, name) == getattr(theirs, name)
    slip, found = np.random.default_rng(0), ours.reset(seed=1)
    same(dict(enumerate(found)), dict(enumerate(theirs.reset(seed=1))))
    ends = np.zeros(2, int)
    for _ in range(60):
        action = towards(found[0], slip)
        found = ours.step(action)
        same(dict(enumerate(found)), dict(enumerate(theirs.step(action))))
        over = found[2] | found[3]
        ends += found[2].sum(), found[3].sum()
        if mode == AutoresetMode.DISABLED and over.any():
            found = ours.reset(options={"reset_mask": over})
            same(dict(enumerate(found)), dict(enumerate(theirs.reset(options={"reset_mask": over.copy()}))))
    assert ends.min() > 5, "some episodes reached their goals, and others the time limit"


def test_the_registry_gives_either_kind() -> None:
    assert isinstance(vector().unwrapped, VectorView)
    assert isinstance(vector(vectorization_mode="sync").unwrapped, SyncVectorEnv)
    assert vector(autoreset_mode="SameStep").metadata["autoreset_mode"] is AutoresetMode.SAME_STEP


def test_gymnasiums_wrappers_fit() -> None:
    env = gym.wrappers.vector.RecordEpisodeStatistics(vector(task=GOALS[0], max_episode_steps=3))
    env.reset(seed=0)
    for _ in range(3):
        *_, info = env.step(np.zeros(env.action_space.shape, np.float32))
    np.testing.assert_allclose(info["episode"]["r"], -0.9)
    np.testing.assert_array_equal(info["episode"]["l"], 3)


def test_the_seed_decides_tasks_starts_and_all_that_follows() -> None:
    envs = [VectorView(POOLED, 4, max_episode_steps=3) for _ in range(2)]
    action = np.full((4, 2), 0.5, np.float32)
    for seed in 3, None:  # without a seed the sequence goes on
        same(*(dict(enumerate(env.reset(seed=seed))) for env in envs))
        for _ in range(9):
            same(*(dict(enumerate(env.step(action))) for env in envs))
    first, second = (
        env.reset(seed=seed)[1]["task"]["goal_x"] for env, seed in zip(envs, (1, 2), strict=True)
    )
    assert (first != second).all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_start_draws_a_task_of_the_split_and_others_keep_theirs(split: Any) -> None:
    env, rest = VectorView(POOLED, 200, split, max_episode_steps=5), np.zeros((200, 2), np.float32)
    pool = {*map(tuple, make(POOLED).sample_tasks(None, split, generator(0)).params.tolist())}
    mask, seen = np.arange(200) < 50, list[np.ndarray]()
    env.reset(seed=0)  # more episodes than the pool has tasks
    for _ in range(2):
        env.step(rest)
    seen.append(np.stack([*env.task.values()], -1))
    info = env.reset(options={"reset_mask": mask})[1]
    assert (info["_task"] == mask).all()
    for t in range(6):
        obs, reward, terminated, truncated, info = env.step(rest)
        goal = np.stack([info["task"]["goal_x"], info["task"]["goal_y"]], -1)
        played = np.where(info["_target"], -np.linalg.norm(obs - goal, axis=-1), 0)
        np.testing.assert_allclose(reward, played, atol=1e-6)
        over = {2: ~mask, 4: mask}.get(t, np.zeros_like(mask))  # each by its own counter
        assert (truncated == over).all()
        assert not terminated.any()
        seen.append(goal)
    start, first, second, third = seen[0], seen[1], seen[4], seen[6]
    for before, after, new in (start, first, mask), (first, second, ~mask), (second, third, mask):
        assert (before[~new] == after[~new]).all()
        assert (before[new] != after[new]).any(-1).mean() > 0.8
    assert {*map(tuple, np.concatenate(seen).tolist())} <= pool


def test_a_task_is_one_for_all_or_one_for_each() -> None:
    env = VectorView(FIXED_START, 2, task={"goal_x": 0.5, "goal_y": 0.0})
    for options, wanted in (
        (None, [0.5, 0.5]),
        ({"task": (0.25, 0)}, [0.25, 0.25]),
        ({"task": [(0.25, 0), {"goal_x": 0.75, "goal_y": 0}]}, [0.25, 0.75]),
        ({"task": np.array([[0.25, 0], [-0.5, 0]])}, [0.25, -0.5]),
        ({"task": [(0, 0), (1, 0)], "reset_mask": np.array([False, True])}, [0.25, 1.0]),
        ({"reset_mask": np.array([True, False])}, [0.5, 1.0]),
        ({}, [0.5, 0.5]),
    ):
        env.reset(options=options)
        assert env.task["goal_x"].tolist() == wanted


@pytest.mark.parametrize("name", [POOLED, ROBOT])
def test_restarting_one_episode_leaves_the_others_alone(name: str) -> None:
    kept, cut = (VectorView(name, 3, autoreset_mode="Disabled") for _ in range(2))
    actions = (
        np.random.default_rng(0).uniform(-1, 1, (12, 3, *make(name).action_space.shape)).astype(np.float32)
    )
    assert (kept.reset(seed=5)[0] == cut.reset(seed=5)[0]).all()
    for t, action in enumerate(actions):
        if t == 6:
            before = kept.step(action * 0)[0]
            obs = cut.step(action * 0)[0]
            assert (obs == before).all()
            again = cut.reset(options={"reset_mask": np.array([False, True, False])})[0]
            assert (again[[0, 2]] == obs[[0, 2]]).all()
            assert (again[1] != obs[1]).any()
        whole, part = kept.step(action), cut.step(action)
        for x, y in zip(whole[:2], part[:2], strict=True):
            assert (x[[0, 2]] == y[[0, 2]]).all()
    assert (whole[0][1] != part[0][1]).any()


@pytest.mark.parametrize("name", [FIXED_START, POOLED, ROBOT])
def test_restarting_all_is_a_reset(name: str) -> None:
    one, other = (make(name) for _ in range(2))
    first, second = (one.sample_tasks(2, "test", generator(seed)) for seed in (0, 1))
    for family in one, other:
        family.reset(first, 3, generator(2))
        family.step(torch.ones(2, 3, *family.action_space.shape))
    everyone = torch.ones(2, 3, dtype=torch.bool)
    restarted: Any = other
    assert torch.equal(one.reset(second, 3, generator(7)), restarted.restart(everyone, second, generator(7)))
    action = torch.full((2, 3, *one.action_space.shape), 0.3)
    for ours, theirs in zip(one.step(action), other.step(action), strict=True):
        assert torch.equal(ours, theirs)


def test_what_it_returns_can_be_kept_and_written_into() -> None:
    env = VectorView(FIXED_START, 2, task=(0.5, 0.0))
    first, info = env.reset(seed=0)
    info["task"]["goal_x"][:] = 9.0
    first[:] = 7.0
    obs, reward, terminated, truncated, info = env.step(np.ones((2, 2), np.float32))
    for x in reward, terminated, truncated, info["task"]["goal_x"], info["_task"]:
        x[:] = 1
    moved = obs.copy()
    obs[:] = 9.0
    found = env.step(np.ones((2, 2), np.float32))
    np.testing.assert_allclose(found[0], moved + 0.1)
    assert found[4]["task"]["goal_x"].tolist() == [0.5, 0.5]
    assert not (found[2] | found[3]).any()


class WithoutRestart:
    def __init__(self) -> None:
        self._family: Any = make(POOLED)

    def __getattr__(self, name: str) -> Any:
        if name == "restart":
            raise AttributeError(name)
        return getattr(self._family, name)


def test_a_family_that_cannot_restart_is_refused_in_a_line() -> None:
    family: Any = WithoutRestart()
    with pytest.raises(ConfigError, match=r"^family is 'navigation/pearl2019', which has no restart"):
        VectorView(family, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0; allowed: 1 or more"),
        ({"num_envs": 2.5}, "num_envs is 2.5; allowed: 1 or more, a whole number"),
        ({"num_envs": "3"}, "num_envs is '3'; allowed: 1 or more"),
        ({"max_episode_steps": -1}, "max_episode_steps is -1; allowed: 1 or more, a whole number"),
        ({"max_episode_steps": 0}, "max_episode_steps is 0; allowed: 1 or more"),
        ({"max_episode_steps": 2.5}, "max_episode_steps is 2.5; allowed: 1 or more"),
        ({"max_episode_steps": "s"}, "max_episode_steps is 's'; allowed: 1 or more"),
        ({"family": ["navigation"]}, r"family is \['navigation'\]; allowed: a name"),
        ({"family": type(make(FIXED_START))}, "family is <class .*>; allowed: a name"),
        ({"autoreset_mode": "Sometimes"}, "autoreset_mode is 'Sometimes'; allowed: NextStep, SameStep"),
        ({"split": "tset"}, "unknown split 'tset'"),
        ({"task": [(0, 0)] * 3}, "task is a sequence of 3; allowed: one task, or 2"),
        ({"task": (0.5,)}, r"task is \(0.5,\); wanted: 2 numbers, goal_x, goal_y"),
        ({"task": 0.5}, "task is 0.5; wanted: 2 numbers"),
        ({"task": ()}, r"task is \(\); wanted: 2 numbers"),
        ({"task": [0.3, [1, 2]]}, r"task is \[0.3, \[1, 2\]\]; wanted: 2 numbers, goal_x, goal_y"),
        ({"task": [(0, 0), (0, [1, 2])]}, r"task is \(0, \[1, 2\]\); wanted: 2 numbers"),
        ({"task": np.zeros((2, 2, 2))}, r"task is \[\[0. 0.\] \[0. 0.\]\]; wanted: 2 numbers"),
        ({"task": [(0, 0), (0,)]}, r"task is \(0,\); wanted: 2 numbers"),
        ({"task": [(0, 0), (0, 9)]}, "goal_y is 9 units; allowed: -1 to 1 units"),
        (
            {"render_mode": "human"},
            "render_mode is 'human'; allowed for navigation/maml2017: rgb_array, None",
        ),
    ],
)
def test_bad_settings_are_refused_in_a_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, TaskError), match=f"^{message}") as error:
        VectorView(**{"family": FIXED_START, "num_envs": 2, **settings})
    assert "\n" not in str(error.value)


def test_counts_may_be_numpys() -> None:
    env = VectorView(FIXED_START, np.int64(2), max_episode_steps=np.int32(3))  # type: ignore[arg-type]
    assert (env.num_envs, env.limit) == (2, 3)


@pytest.mark.parametrize("action", [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(4), 0.5, [[0, 0], [0]]])
def test_actions_of_another_shape_are_refused_in_a_line(action: Any) -> None:
    env = VectorView(FIXED_START, 2)
    env.reset()
    with pytest.raises(ConfigError, match=r"^the action's shape is .*; allowed: \(2, 2\)$"):
        env.step(action)


def test_an_option_without_effect_is_refused() -> None:
    message = r"^unknown reset option 'tasks'; allowed: reset_mask, task; did you mean 'task'\?$"
    with pytest.raises(ConfigError, match=message):
        VectorView(FIXED_START, 2).reset(options={"tasks": (0.3, 0)})


@pytest.mark.parametrize("mask", [[True, False], np.array([1, 0]), np.array([True]), np.zeros(2, bool)])
def test_a_bad_mask_is_refused_in_a_line(mask: Any) -> None:
    env = VectorView(FIXED_START, 2)
    env.reset()
    with pytest.raises(ConfigError, match=r"^options\['reset_mask'\] is .*; allowed: a bool array \[2\]"):
        env.reset(options={"reset_mask": mask})


def test_stepping_what_is_over_or_never_began_is_refused() -> None:
    env = VectorView(FIXED_START, 2, autoreset_mode="Disabled", max_episode_steps=1, render_mode="rgb_array")
    action = np.zeros((2, 2), np.float32)
    for early in lambda: env.step(action), env.render, lambda: env.task:
        with pytest.raises(gym.error.ResetNeeded, match=r"^there is no episode yet: call reset\(\) first$"):
            early()
    env.reset()
    env.step(action)
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gym.error.ResetNeeded, match=r"the episodes of \[1\] are over"):
        env.step(action)
