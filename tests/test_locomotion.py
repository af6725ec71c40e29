"""Every locomotion family against Gymnasium's environment of that robot, by its convention's formulas."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl import TaskError, Tasks, generator
from metarl.envs import make, named_tasks

Array = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What leaves a family has torch's default precision: with this one nothing is rounded."""
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warnings where one stands
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# --- what the published sources observe and reward, from Gymnasium's simulation


class Seen:
    """One step of Gymnasium's environment: its data after it, and how far things moved in it."""

    def __init__(self, env: Any, before: dict[str, Array], control: Array, task: list[float]) -> None:
        self.data, self.model, self.task = env.data, env.model, task
        self.cost = float(np.square(control).sum())
        self.velocity = {k: (now - before[k]) / env.dt for k, now in places(env).items()}


def places(env: Any) -> dict[str, Array]:
    """The root's, the torso's and the centre of mass's place, as Gymnasium's data have them."""
    mass = env.model.body_mass
    return {
        "root": env.data.qpos[:1].copy(),
        "torso": env.data.body("torso").xpos[:2].copy(),
        "com": mass @ env.data.xipos[:, :2] / mass.sum(),
    }


def slim(data: Any) -> Array:
    return np.concatenate([data.qpos[1:], data.qvel])


def with_torso(data: Any) -> Array:
    return np.concatenate([slim(data), data.body("torso").xpos])


def clipped(data: Any) -> Array:
    return np.concatenate([data.qpos[1:], data.qvel.clip(-10, 10)])


def ant(data: Any) -> Array:
    return np.concatenate([data.qpos[2:], data.qvel])


def everything(data: Any) -> Array:
    return np.concatenate([data.qpos, data.qvel])


def humanoid(data: Any) -> Array:
    derived = (data.cinert, data.cvel, data.qfrc_actuator)
    return np.concatenate([ant(data), *(x.ravel() for x in derived)])


def goal_velocity(s: Seen) -> float:
    return float(-abs(s.velocity["root"][0] - s.task[0]) - 0.05 * s.cost)


def either_way(s: Seen) -> float:
    return float(s.task[0] * s.velocity["root"][0] - 0.05 * s.cost)


def ant_either_way(s: Seen) -> float:
    return float(s.task[0] * s.velocity["torso"][0] - 0.5 * s.cost + 1.0)


def heading(s: Seen) -> Array:
    return np.array([np.cos(s.task[0]), np.sin(s.task[0])])


def ant_heading(s: Seen) -> float:
    return float(s.velocity["torso"] @ heading(s) - 0.5 * s.cost + 1.0)


def ant_goal(s: Seen) -> float:
    return float(-np.abs(s.data.body("torso").xpos[:2] - s.task).sum() - 0.1 * s.cost)


def humanoid_heading(s: Seen) -> float:
    moved = 0.015 * s.velocity["com"]  # in the step's five substeps, and divided by one of them
    return float(0.25 * moved @ heading(s) / 0.003 - 0.1 * s.cost + 5.0)


def onwards(s: Seen) -> float:
    return float(s.velocity["root"][0] + 1.0 - 1e-3 * s.cost)


PUBLISHED: dict[str, tuple[str, Callable[[Any], Array], Callable[[Seen], float]]] = {
    "half-cheetah-vel/pearl2019": ("HalfCheetah-v5", with_torso, goal_velocity),
    "half-cheetah-vel/promp2019": ("HalfCheetah-v5", slim, goal_velocity),
    "half-cheetah-vel/varibad2020": ("HalfCheetah-v5", with_torso, goal_velocity),
    "half-cheetah-vel/robust2023": ("HalfCheetah-v5", with_torso, goal_velocity),
    "half-cheetah-vel/amago2024": ("HalfCheetah-v5", slim, goal_velocity),
    "half-cheetah-dir/pearl2019": ("HalfCheetah-v5", with_torso, either_way),
    "ant-dir/pearl2019": ("Ant-v5", ant, ant_either_way),
    "ant-dir-2d/promp2019": ("Ant-v5", ant, ant_heading),
    "ant-goal/pearl2019": ("Ant-v5", everything, ant_goal),
    "humanoid-dir/pearl2019": ("Humanoid-v5", humanoid, humanoid_heading),
    "hopper-params/pearl2019": ("Hopper-v5", clipped, onwards),
    "walker2d-params/pearl2019": ("Walker2d-v5", clipped, onwards),
}
FALLS = {name for name in PUBLISHED if "cheetah" not in name and "goal" not in name}
SCALE = {"half-cheetah-vel/promp2019": 10.0}  # a policy's action for an actuator's whole range


def gymnasium_twin(family: Any, i: int, model_id: str) -> Any:
    """Gymnasium's environment with the body and in the state of the family's i-th simulation."""
    env: Any = gym.make(model_id, reset_noise_scale=0).unwrapped
    env.reset(seed=0)
    params = family.params.expand(*family._shape, -1).flatten(0, 1)
    for field, values in family._fields(params).items():
        getattr(env.model, field)[:] = values[i].numpy()
    if family._fields(params):
        mujoco.mj_setConst(env.model, mujoco.MjData(env.model))
    env.set_state(family._physics.qpos[i].numpy(), family._physics.qvel[i].numpy())
    return env


@pytest.mark.parametrize("name", PUBLISHED)
def test_states_observations_rewards_and_ends_are_those_of_the_published_formulas(name: str) -> None:
    model_id, observe, reward = PUBLISHED[name]
    family: Any = make(name)
    tasks = family.sample_tasks(2, "test", generator(1))
    obs = family.reset(tasks, 2, generator(0))
    twins = [gymnasium_twin(family, i, model_id) for i in range(4)]
    reach, falls = twins[0].model.actuator_ctrlrange[:, 1], 0
    for t in range(200):
        for i, env in enumerate(twins):
            assert obs[i // 2, i % 2].numpy() == pytest.approx(observe(env.data), abs=1e-9), t
        action = 0.7 * torch.randn(2, 2, *family.action_space.shape, generator=generator(t))
        outcome = family.step(action)
        for i, env in enumerate(twins):
            n, e = divmod(i, 2)
            control = reach * np.clip(action[n, e].numpy() / SCALE.get(name, 1.0), -1, 1)
            before = places(env)
            unhealthy = env.step(control)[2] and name in FALLS
            assert np.array_equal(family._physics.qpos[i], env.data.qpos), t
            assert np.array_equal(family._physics.qvel[i], env.data.qvel), t
            expected = reward(Seen(env, before, control, tasks.params[n].tolist()))
            assert outcome.reward[n, e].item() == pytest.approx(expected, abs=1e-9)
            if name != "ant-dir-2d/promp2019":  # that one falls at a height of 0, not of 0.2 m
                assert bool(outcome.terminated[n, e]) == unhealthy, t
            falls += unhealthy
        obs = outcome.obs
    assert (falls > 0) == (name in FALLS)


def test_ant_vel_observes_and_rewards_as_rllab_does() -> None:
    # rllab calls mj_forward after its one step, then reads what is derived from the new state
    family: Any = make("ant-vel/maml2017")
    data = mujoco.MjData(family.model)
    tasks = named_tasks(family, [{"velocity": 0.5}, {"velocity": 2.0}])
    obs, ended = family.reset(tasks, 2, generator(0)), torch.zeros(2, 2, dtype=torch.bool)
    assert family.model.opt.timestep == family.dt == 0.02
    for t in range(100):
        action = torch.randn(2, 2, 8, generator=generator(t))
        outcome = family.step(action)
        for i, (n, e) in enumerate(np.ndindex(2, 2)):
            data.qpos[:], data.qvel[:] = family._physics.qpos[i], family._physics.qvel[i]
            mujoco.mj_forward(family.model, data)
            mujoco.mj_subtreeVel(family.model, data)
            expected = np.concatenate([data.qpos, data.qvel, data.xmat[1], data.subtree_com[1]])
            assert outcome.obs[n, e].numpy() == pytest.approx(expected, abs=1e-9)
            missed = abs(data.subtree_linvel[1, 0] - tasks.params[n, 0].item())
            cost = 0.005 * np.square(np.clip(action[n, e].numpy(), -1, 1)).sum()
            assert outcome.reward[n, e].item() == pytest.approx(1 - missed - cost + 0.05, abs=1e-9)
            assert bool(outcome.terminated[n, e]) == (not 0.2 <= data.qpos[2] <= 1.0)
        ended |= outcome.terminated
        obs = outcome.obs
    assert obs.shape == (2, 2, 41)


# --- tasks


def test_the_two_directions_are_opposite_and_no_other_is_accepted() -> None:
    for name in ("half-cheetah-dir/maml2017", "half-cheetah-dir/pearl2019", "ant-dir/pearl2019"):
        family: Any = make(name)
        assert family.shared_splits
        assert family.sample_tasks(None, "test", generator(0)).params.tolist() == [[-1.0], [1.0]]
        with pytest.raises(TaskError, match=r"direction is 0\.5; allowed: -1 or 1"):
            named_tasks(family, [{"direction": 0.5}])


@pytest.mark.parametrize("n", [1, 2, 19, 20])
def test_a_meta_batch_goes_both_ways_equally_often_and_in_random_order(n: int) -> None:
    family, rng = make("half-cheetah-dir/maml2017"), generator(0)
    drawn = torch.cat([family.sample_tasks(n, "train", rng).params for _ in range(1000)], 1)  # [n, 1000]
    assert set(drawn.flatten().tolist()) == {-1.0, 1.0}
    assert (drawn.sum(0).abs() == n % 2).all()
    assert drawn.mean(1).abs().max() < 0.15  # each place is a fair coin: 0.03 is a standard deviation


def test_headings_that_lie_half_a_turn_apart_earn_the_opposite_for_the_same_motion() -> None:
    family: Any = make("ant-dir-2d/promp2019")
    tasks = named_tasks(family, [{"angle": 0.4}, {"angle": 0.4 + np.pi}])
    family.reset(tasks, 1, generator(0))
    family._physics.reset(family._physics.qpos[[0, 0]], family._physics.qvel[[0, 0]])
    action = torch.randn(1, 1, 8, generator=generator(1)).expand(2, 1, 8)
    earned = family.step(action).reward[:, 0] - 1.0 + 0.5 * action[0, 0].clamp(-1, 1).square().sum()
    assert earned[0].item() == pytest.approx(-earned[1].item(), abs=1e-12)
    assert abs(earned[0].item()) > 1e-3


@pytest.mark.parametrize("name", ["hopper-params/pearl2019", "walker2d-params/pearl2019"])
def test_bodies_are_those_of_rand_param_envs(name: str) -> None:
    family: Any = make(name)
    names = [p.name for p in family.task_space]
    assert {"mass.torso", "inertia.foot.y", "damping.foot_joint", "friction.foot_geom.slide"} <= {*names}
    exponents = {"mass.torso": 2.0, "friction.floor.slide": -3.0, "damping.foot_joint": 1.0}
    family.reset(named_tasks(family, [{}, exponents]), 1, generator(0))
    nominal, varied = (family._fields(p[None]) for p in family.params[:, 0])
    model = family.model
    for field, values in nominal.items():
        assert np.array_equal(values[0], getattr(model, field))
    torso, joint = model.body("torso").id, model.joint("foot_joint").dofadr[0]
    assert varied["body_mass"][0, torso] == pytest.approx(1.5**2 * model.body_mass[torso])
    assert varied["geom_friction"][0, 0, 0] == pytest.approx(1.5**-3 * model.geom_friction[0, 0])
    assert varied["dof_damping"][0, joint] == pytest.approx(1.3 * model.dof_damping[joint])
    same = (varied["body_mass"] == nominal["body_mass"]).sum()
    assert same == model.nbody - 1
    train = family.sample_tasks(None, "train", generator(0)).params
    assert train.shape[0] == 40
    assert train.abs().max() <= 3
    ood = family.sample_tasks(None, "ood", generator(0)).params
    assert (ood.abs().amax(1) > 3).all()


# --- what goes wrong, and episodes that are restarted in between


@pytest.mark.parametrize("name", ["half-cheetah-dir/pearl2019", "ant-goal/pearl2019", "ant-dir/pearl2019"])
def test_a_simulation_that_breaks_ends_its_own_episode_and_no_other(name: str) -> None:
    family: Any = make(name)
    tasks = family.sample_tasks(2, "test", generator(0))
    script = 0.1 * torch.randn(6, 2, 2, *family.action_space.shape, generator=generator(1))
    family.reset(tasks, 2, generator(0))
    sound = [family.step(action) for action in script]
    family.reset(tasks, 2, generator(0))
    for t, action in enumerate(script):
        if t == 3:
            action[1, 0] = torch.nan
        outcome = family.step(action)
        broken = torch.tensor([[False, False], [t >= 3, False]])
        assert torch.equal(outcome.terminated[~broken], sound[t].terminated[~broken])
        assert outcome.terminated[broken].all()
        assert torch.equal(outcome.obs[~broken], sound[t].obs[~broken])
        assert torch.equal(outcome.reward[~broken], sound[t].reward[~broken])
        assert outcome.obs.isfinite().all()
        if t == 3:  # 197 of 200 steps are left: as if it stood still in them, but for what that pays
            standing = min(0.0, family._standing(tasks.params)[1].item())
            assert outcome.reward[1, 0].item() == pytest.approx(197 * standing)


@pytest.mark.parametrize(
    "name", ["half-cheetah-vel/pearl2019", "ant-vel/maml2017", "walker2d-params/pearl2019"]
)
def test_restarted_episodes_are_as_fresh_ones_and_the_others_go_on(name: str) -> None:
    family: Any = make(name)
    first, second = (family.sample_tasks(3, "test", generator(s)) for s in (0, 1))
    script = 0.3 * torch.randn(8, 3, 1, *family.action_space.shape, generator=generator(2))
    family.reset(second, 1, generator(7))
    fresh = [family.step(action) for action in script[4:]]
    family.reset(first, 1, generator(0))
    straight = [family.step(action) for action in script]
    family.reset(first, 1, generator(0))
    for action in script[:4]:
        family.step(action)
    ended = torch.tensor([[False], [True], [False]])
    mixed = Tasks(torch.where(ended, second.params, first.params), first.ids)
    family.restart(ended, mixed, generator(7))
    for t, action in enumerate(script[4:]):
        outcome = family.step(action)
        for kind in ("obs", "reward", "terminated"):
            values, anew, on = (getattr(o, kind) for o in (outcome, fresh[t], straight[4 + t]))
            assert torch.equal(values[ended], anew[ended])
            assert torch.equal(values[~ended], on[~ended])


# --- floors and ceilings


@pytest.mark.parametrize("name", [n for n in PUBLISHED if "cheetah" in n])
def test_standing_still_earns_about_the_floor(name: str) -> None:
    family: Any = make(name)
    tasks = family.sample_tasks(2, "test", generator(0))
    family.reset(tasks, 8, generator(0))
    still = torch.zeros(2, 8, 6)
    returns = sum(family.step(still).reward for _ in range(family.horizon))
    assert isinstance(returns, Tensor)
    bounds = family.bounds(tasks)
    slack = 0.15 / family.dt + 5  # it settles, and its root comes to rest a little off its start
    assert returns.mean(1).numpy() == pytest.approx(bounds.floor.numpy(), abs=slack)
    assert (returns < bounds.oracle[:, None]).all()


def test_the_ceiling_of_a_direction_is_what_a_sliding_block_would_earn() -> None:
    family: Any = make("half-cheetah-dir/maml2017")
    bounds = family.bounds(family.sample_tasks(None, "test", generator(0)))
    block = sum(0.4 * 9.81 * 0.01 * t for t in range(1, 201))  # v_t = μ g t
    assert bounds.oracle.tolist() == pytest.approx([block, block])
    assert bounds.floor.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("name", "task", "model_id"),
    [
        ("hopper-params/pearl2019", {}, "Hopper-v5"),
        ("humanoid-dir/pearl2019", {"angle": 0.0}, "Humanoid-v5"),
    ],
)
def test_the_floor_of_a_limp_robot_is_what_it_earns_before_it_has_fallen(
    name: str, task: dict[str, float], model_id: str
) -> None:
    family: Any = make(name)
    floor = family.bounds(named_tasks(family, [task])).floor.item()
    settings: dict[str, Any] = {"contact_cost_weight": 0.0} if model_id == "Humanoid-v5" else {}
    env: Any = gym.make(model_id, **settings).unwrapped
    returns = []
    for seed in range(8):
        env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            _, reward, ended, _, _ = env.step(np.zeros(env.model.nu))
            total += reward
        returns.append(total)
    bonus = (
        5.0 if "humanoid" in name else 1.0
    )  # Gymnasium's robots do not earn it in the step in which they fall
    returns = [total + bonus for total in returns]
    assert floor == pytest.approx(np.mean(returns), abs=3 * float(np.std(returns)) / 2 + 1)


@pytest.mark.parametrize("name", [*PUBLISHED, "half-cheetah-vel/maml2017", "ant-vel/maml2017"])
def test_a_speed_that_was_handed_out_stays_as_it_was(name: str) -> None:
    family: Any = make(name)
    family.reset(family.sample_tasks(2, "test", generator(0)), 1, generator(0))
    seen = [family.speed()]
    for t in range(5):
        family.step(torch.randn(2, 1, *family.action_space.shape, generator=generator(t)))
        seen.append(family.speed())
    assert torch.stack(seen[1:]).unique().numel() == 10  # two robots, at five moments
