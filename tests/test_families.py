"""What every family promises, and that the check of it finds families that break their word."""

import importlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import metarl.envs
from metarl import ConfigError, TaskError, Tasks, generator
from metarl.envs import FAMILIES, GymnasiumView, VectorView, check_family, gymnasium_id, make

NAMES = sorted(FAMILIES)
SLOW = ("ant", "humanoid", "hopper", "walker2d")  # test_locomotion.py plays these in double precision
SMALL = "navigation/pearl2019"  # 20 steps, random starts, pools for all splits


@pytest.mark.parametrize("name", NAMES)
def test_every_family_keeps_its_promises(name: str) -> None:
    check_family(make(name))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(SLOW)])
def test_every_family_keeps_its_promises_in_double_precision(name: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        check_family(make(name))
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_unknown_family_is_refused_with_a_suggestion() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown family 'navigation/mamal2017'.*did you mean 'navigation/maml2017'"
    ):
        make("navigation/mamal2017")


# --- families that break a promise, each in one way


def outcome_of(family: Any, change: Callable[[Any], Any]) -> None:
    step = family.step
    family.step = lambda action: change(step(action))


def reward_leaks_through_the_batch(family: Any) -> None:
    outcome_of(family, lambda o: o._replace(reward=o.reward - o.reward.mean()))


def episodes_of_a_task_share_their_end(family: Any) -> None:
    def change(o: Any) -> Any:
        far = o.obs.abs().amax(-1) > 1
        return o._replace(terminated=far.any(1, keepdim=True).expand_as(far))

    outcome_of(family, change)


def the_past_leaks_into_the_reward(family: Any) -> None:
    steps = []

    def change(o: Any) -> Any:
        steps.append(o)
        return o._replace(reward=o.reward - len(steps))

    outcome_of(family, change)


def the_start_tells_the_goal(family: Any) -> None:
    reset = family.reset
    family.reset = lambda tasks, e, rng: reset(tasks, e, rng) * 0 + family.goals(tasks)[:, None]


def noise_is_global(family: Any) -> None:
    outcome_of(family, lambda o: o._replace(reward=o.reward + torch.rand(1)))


def a_global_draw_is_thrown_away(family: Any) -> None:
    outcome_of(family, lambda o: (np.random.rand(), o)[1])  # noqa: NPY002


def one_buffer_is_handed_out_again_and_again(family: Any) -> None:
    buffer = torch.zeros(3, 2, 2)

    def change(o: Any) -> Any:
        return o._replace(obs=buffer.copy_(o.obs) if o.obs.shape == buffer.shape else o.obs)

    outcome_of(family, change)


def actions_are_clipped_where_they_lie(family: Any) -> None:
    step = family.step
    family.step = lambda action: step(action.clamp_(-1, 1))


def rewards_have_a_trailing_axis(family: Any) -> None:
    outcome_of(family, lambda o: o._replace(reward=o.reward[..., None]))


def ends_are_numbers(family: Any) -> None:
    outcome_of(family, lambda o: o._replace(terminated=o.terminated.float()))


def axes_are_swapped(family: Any) -> None:
    outcome_of(family, lambda o: o._replace(reward=o.reward.mT))


def observations_leave_their_space(family: Any) -> None:
    outcome_of(family, lambda o: o._replace(obs=2 * o.obs))


def rewards_become_infinite(family: Any) -> None:
    outcome_of(family, lambda o: o._replace(reward=1 / o.terminated.to(o.reward.dtype)))


def a_test_task_is_trained(family: Any) -> None:
    family.pools["train"] = torch.cat([family.pools["train"], family.pools["test"][3:4]])


def a_task_lies_outside_the_task_space(family: Any) -> None:
    family.pools["ood"] = family.pools["ood"] * 2


def a_trained_task_lies_outside_the_trained_range(family: Any) -> None:
    family.pools["train"] = family.pools["train"] * 1.2


def sampler(family: Any, change: Callable[[int | None, str, Tasks], Tasks]) -> None:
    draw = family.sample_tasks
    family.sample_tasks = lambda n, split, rng: change(n, split, draw(n, split, rng))


def the_whole_pool_comes_shuffled(family: Any) -> None:
    sampler(family, lambda n, split, tasks: Tasks(*(x.flip(0) for x in tasks)) if n is None else tasks)


def a_draw_repeats_tasks(family: Any) -> None:
    sampler(family, lambda n, s, tasks: Tasks(*(x[:1].expand_as(x) for x in tasks)) if n else tasks)


def ids_are_not_places(family: Any) -> None:
    sampler(family, lambda n, s, tasks: tasks._replace(params=tasks.params.flip(0)) if n else tasks)


def the_test_split_is_continuous(family: Any) -> None:
    def change(n: int | None, split: str, tasks: Tasks) -> Tasks:
        if n is None and split == "test":
            raise ConfigError("the test split is continuous")
        return tasks

    sampler(family, change)


def any_split_will_do(family: Any) -> None:
    draw = family.sample_tasks
    family.sample_tasks = lambda n, split, rng: draw(n, split if split != "validation" else "test", rng)


def the_oracle_is_below_the_floor(family: Any) -> None:
    bounds = family.bounds
    family.bounds = lambda tasks: metarl.Bounds(*reversed(bounds(tasks)))


def the_floor_is_one_number(family: Any) -> None:
    bounds = family.bounds
    family.bounds = lambda tasks: bounds(tasks)._replace(floor=bounds(tasks).floor.mean())


def a_range_is_upside_down(family: Any) -> None:
    family.task_space = tuple(p._replace(low=p.high, high=p.low) for p in family.task_space)


BROKEN: dict[Callable[[Any], None], str] = {
    reward_leaks_through_the_batch: "depends on the tasks or the actions beside it",
    episodes_of_a_task_share_their_end: "depends on the tasks or the actions beside it",
    the_past_leaks_into_the_reward: "the same rollout",
    the_start_tells_the_goal: "the first observation tells the task",
    noise_is_global: "the same rollout",
    a_global_draw_is_thrown_away: "a global generator was used",
    one_buffer_is_handed_out_again_and_again: "hand out copies",
    actions_are_clipped_where_they_lie: "are written into",
    rewards_have_a_trailing_axis: r"reward is \[3, 2, 1\]; wanted: \[3, 2\]",
    ends_are_numbers: "terminated is torch.float32; wanted: torch.bool",
    axes_are_swapped: r"reward is \[2, 3\]; wanted: \[3, 2\]",
    observations_leave_their_space: "lie outside Box",
    rewards_become_infinite: "reward is not finite",
    a_test_task_is_trained: "train and test share tasks",
    a_task_lies_outside_the_task_space: "ood: goal_[xy] is .*allowed: -1.5 to 1.5",
    a_trained_task_lies_outside_the_trained_range: "train: goal_[xy] is .*allowed: -1 to 1",
    the_whole_pool_comes_shuffled: "has to come in order",
    a_draw_repeats_tasks: "of different tasks",
    ids_are_not_places: "ids have to be places",
    the_test_split_is_continuous: "test has to be a fixed pool",
    any_split_will_do: "sample_tasks.*'validation'.* has to raise",
    the_oracle_is_below_the_floor: "the floor is above the oracle",
    the_floor_is_one_number: r"the floor is \[\]; wanted: \[80\]",
    a_range_is_upside_down: "needs low <= train_low",
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda f: f.__name__)
def test_a_family_that_breaks_a_promise_is_found(breaks: Callable[[Any], None]) -> None:
    family = make(SMALL)
    breaks(family)
    with pytest.raises(AssertionError, match=BROKEN[breaks]):
        check_family(family)


# --- every family as a Gymnasium environment


@pytest.mark.filterwarnings("ignore:It seems that your observation")  # bytes are wanted of pictures,
@pytest.mark.filterwarnings("ignore:The minimal resolution for an image")  # and more than 28 x 28 of them
@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_a_gymnasium_environment(name: str, no_opengl: str) -> None:
    env = gym.make(gymnasium_id(name))
    assert env.spec is not None
    assert env.spec.max_episode_steps == make(name).horizon
    with warnings.catch_warnings():
        if not np.isfinite(make(name).observation_space.high).all():
            warnings.filterwarnings("ignore", "(?s).*Box observation space m.*imum value is -?infinity")
        actions = make(name).action_space
        if isinstance(actions, gym.spaces.Box) and (actions.high != 1).any():  # as published
            warnings.filterwarnings("ignore", "(?s).*recommend.*symmetric and normalized")
        robot = hasattr(make(name), "model")
        check_env(env.unwrapped, skip_render_check=robot and no_opengl != "")
        check_env_of_sb3(env)


@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_a_gymnasium_vector_environment(name: str) -> None:
    envs = gym.make_vec(gymnasium_id(name), num_envs=3, autoreset_mode="SameStep", max_episode_steps=2)
    obs, info = envs.reset(seed=0)
    for _ in range(3):
        assert envs.observation_space.contains(obs)
        assert [*info["task"]][::2] == [p.name for p in make(name).task_space]
        obs, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        assert ("final_obs" in info) == (terminated | truncated).any()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("navigation/maml2017", "metarl/Navigation-maml2017-v0"),
        ("navigation-sparse/pearl2019", "metarl/NavigationSparse-pearl2019-v0"),
        ("half-cheetah-vel/maml2017", "metarl/HalfCheetahVel-maml2017-v0"),
        ("my-own-world", "metarl/MyOwnWorld-v0"),
    ],
)
def test_an_id_is_the_name_in_gymnasiums_spelling(name: str, wanted: str) -> None:
    assert gymnasium_id(name) == wanted


def test_importing_again_registers_nothing_twice() -> None:
    before = dict(gym.registry)
    importlib.reload(metarl.envs)  # Gymnasium warns of an id that is overridden, and warnings are errors
    assert dict(gym.registry) == before


def view(**settings: Any) -> Any:
    return gym.make(gymnasium_id(SMALL), **settings)


def test_a_task_is_chosen_at_reset_by_name_or_by_its_numbers() -> None:
    env = view()
    for task in {"goal_x": 0.5, "goal_y": -0.25}, (0.5, -0.25), np.array([0.5, -0.25], np.float32):
        obs, info = env.reset(seed=1, options={"task": task})
        assert info == {"task": {"goal_x": 0.5, "goal_y": -0.25}}
        obs, reward, *_, info = env.step(np.zeros(2, np.float32))
        assert reward == pytest.approx(-np.linalg.norm(obs - [0.5, -0.25]))
        assert info["task"] == {"goal_x": 0.5, "goal_y": -0.25}


def test_a_fixed_task_stays_until_another_is_asked_for() -> None:
    env = view(task={"goal_x": 0.5, "goal_y": 0.0})
    for options, wanted in (None, 0.5), ({"task": (0.25, 0)}, 0.25), ({}, 0.5):
        assert env.reset(options=options)[1]["task"]["goal_x"] == wanted


@pytest.mark.parametrize("split", metarl.SPLITS)
def test_without_a_task_one_is_drawn_from_the_split(split: metarl.Split) -> None:
    env, pool = view(split=split), make(SMALL).sample_tasks(None, split, generator(0)).params.tolist()
    drawn = [[*env.reset(seed=i)[1]["task"].values()] for i in range(10)]
    assert all(task in pool for task in drawn)
    assert len({*map(tuple, drawn)}) > 5


def test_the_seed_decides_task_start_and_all_that_follows() -> None:
    env, other = view(), view()
    for seed in 0, None, None:  # without a seed the sequence goes on
        (obs, info), (obs2, info2) = env.reset(seed=seed), other.reset(seed=seed)
        assert info == info2
        assert np.array_equal(obs, obs2)
    assert env.reset(seed=1)[1] != other.reset(seed=2)[1]


def test_an_environment_plays_what_the_family_plays() -> None:
    family: Any = make(SMALL)
    env = gym.make(gymnasium_id(SMALL), task=(0.5, 0.5))
    start = env.reset(seed=3)[0]
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(family.horizon)]
    found = [env.step(action) for action in actions]
    assert [(f[2], f[3]) for f in found] == [(False, False)] * 19 + [(False, True)]
    position = start
    for action, (obs, reward, *_) in zip(actions, found, strict=True):
        position = position + 0.1 * action
        np.testing.assert_allclose(obs, position, atol=1e-6)
        assert reward == pytest.approx(-np.linalg.norm(position - [0.5, 0.5]), abs=1e-6)


def test_an_environment_ends_where_the_family_does() -> None:
    env = gym.make("metarl.envs:metarl/Navigation-maml2017-v0", task=(0.1, 0.0))
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(np.array([1.0, 0.0], np.float32))
    assert (terminated, truncated) == (True, False)
    assert reward == pytest.approx(0, abs=1e-6)


def test_the_dense_reward_of_a_sparse_family_is_in_the_info() -> None:
    env = gym.make("metarl/NavigationSparse-pearl2019-v0", task=(0.0,))
    env.reset(seed=0)
    _, reward, *_, info = env.step(np.zeros(2, np.float32))
    assert (reward, info["target"]) == (0.0, -1.0)


def test_what_an_environment_returns_can_be_kept_and_written_into() -> None:
    env = view(task=(0.0, 0.0))
    first, _ = env.reset(seed=0)
    obs = env.step(np.ones(2, np.float32))[0]
    first[:], moved = 7.0, obs.copy()
    obs[:] = 9.0
    np.testing.assert_allclose(env.step(np.ones(2, np.float32))[0], moved + 0.1, rtol=1e-6)


def test_a_family_of_ones_own_can_be_viewed_without_a_registry() -> None:
    family = make(SMALL)
    env = GymnasiumView(family, split="test")
    env.reset(seed=0)
    assert env.family is family
    assert [*env.task] == ["goal_x", "goal_y"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"goal_x": 3, "goal_y": 0}, "goal_x is 3 units; allowed: -1.5 to 1.5 units"),
        ((0.5, -1.75), "goal_y is -1.75 units; allowed: -1.5 to 1.5 units"),
        ((0.5, float("nan")), "goal_y is nan units; allowed: -1.5 to 1.5 units"),
        ({"goal_x": "far", "goal_y": 0}, "goal_x is far units; allowed: -1.5 to 1.5 units"),
        ({"goal_x": 0.5}, "task parameter 'goal_y' is missing; wanted: goal_x, goal_y"),
        (
            {"goal_x": 0, "goal_z": 0},
            "unknown task parameter 'goal_z'; allowed: goal_x, goal_y; did you mean 'goal_y'?",
        ),
        ((0.5,), "task is (0.5,); wanted: 2 numbers, goal_x, goal_y"),
        (0.5, "task is 0.5; wanted: 2 numbers, goal_x, goal_y"),
        ([0.3, [1, 2]], "task is [0.3, [1, 2]]; wanted: 2 numbers, goal_x, goal_y"),
        (np.eye(2), "task is [[1. 0.] [0. 1.]]; wanted: 2 numbers, goal_x, goal_y"),
    ],
)
def test_a_bad_task_is_refused_in_a_line(task: Any, message: str) -> None:
    env = view()
    with pytest.raises(TaskError, match=f"^{re.escape(message)}$"):
        env.reset(options={"task": task})
    with pytest.raises(TaskError, match=f"^{re.escape(message)}$"):
        view(task=task)


def test_a_bad_split_is_refused_in_a_line() -> None:
    with pytest.raises(
        ConfigError, match=r"^unknown split 'tset'; allowed: ood, test, train; did you mean 'test'"
    ):
        view(split="tset")


@pytest.mark.parametrize("action", [np.zeros(3), np.zeros((1, 2)), 0.5, [0, [0, 0]]])
def test_an_action_of_another_shape_is_refused_in_a_line(action: Any) -> None:
    env = GymnasiumView(SMALL)
    env.reset()
    with pytest.raises(ConfigError, match=r"^the action's shape is .*; allowed: \(2,\)$"):
        env.step(action)


def test_an_option_of_reset_without_effect_is_refused() -> None:
    message = r"^unknown reset option 'tasks'; allowed: task; did you mean 'task'\?$"
    with pytest.raises(ConfigError, match=message):
        view().reset(options={"tasks": (0.3, 0)})


def test_before_reset_there_is_no_episode() -> None:
    env = GymnasiumView(SMALL, render_mode="rgb_array")
    for early in lambda: env.step(np.zeros(2)), env.render, lambda: env.task:
        with pytest.raises(gym.error.ResetNeeded, match=r"^there is no episode yet: call reset\(\) first$"):
            early()


@pytest.mark.parametrize("kind", [GymnasiumView, VectorView])
def test_a_users_robot_is_viewed_as_a_named_family_is(kind: Any, tmp_path: Path) -> None:
    for robot in tmp_path / "none.yaml", str(tmp_path / "none.yaml"), {"nme": 1}, None:
        with pytest.raises(ConfigError) as made:
            make(robot)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"^{re.escape(str(made.value))}$"):
            kind(robot)
