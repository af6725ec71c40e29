"""Half-cheetahs against Gymnasium's, bit for bit, and against the published formulas."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import Tasks, device, generator, opening, train
from metarl.agents import MamlTrpo
from metarl.envs import gymnasium_model, make, named_tasks, simulate

NAMES = ("half-cheetah-vel/maml2017", "half-cheetah-vel/pearl2019")
SUBSTEPS = dict(zip(NAMES, (1, 5), strict=True))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warnings where one stands


@pytest.fixture
def _exact() -> Iterator[None]:
    """What leaves a family has torch's default precision: with this one nothing is rounded."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def actions(steps: int, *batch: int, seed: int = 1) -> Tensor:
    return torch.randn(steps, *batch, 6, generator=generator(seed))  # a third of them out of range


def gymnasium_cheetah(frame_skip: int, qpos: Tensor, qvel: Tensor) -> Any:
    """Gymnasium's environment in this state, after a fresh reset: that is where the solver starts cold."""
    env: Any = gym.make("HalfCheetah-v5", frame_skip=frame_skip, reset_noise_scale=0).unwrapped
    env.reset(seed=0)
    env.set_state(qpos.double().numpy(), qvel.double().numpy())
    return env


def same(qpos: Tensor, qvel: Tensor, env: Any) -> bool:
    """Equal in every bit."""
    return bool(np.array_equal(qpos, env.data.qpos) and np.array_equal(qvel, env.data.qvel))


def tasks_of(family: Any, *velocities: float) -> Tasks:
    return named_tasks(family, [{"velocity": v} for v in velocities])


@pytest.mark.parametrize("name", NAMES)
def test_two_hundred_steps_are_those_of_gymnasium_in_every_bit(name: str) -> None:
    family: Any = make(name)
    family.reset(tasks_of(family, 0.5, 1.5), 2, generator(0))
    qpos, qvel = family._physics.qpos, family._physics.qvel
    envs = [gymnasium_cheetah(SUBSTEPS[name], q, v) for q, v in zip(qpos, qvel, strict=True)]
    for action in actions(200, 2, 2):
        family.step(action)
        for i, env in enumerate(envs):
            env.step(action.view(4, 6)[i].clamp(-1, 1).double().numpy())
            assert same(qpos[i], qvel[i], env)


@pytest.mark.parametrize("as_mask", [False, True])
def test_simulations_that_are_reset_in_between_leave_the_others_as_they_were(as_mask: bool) -> None:
    physics = simulate(gymnasium_model("half_cheetah.xml"), 4)
    qpos, qvel = 0.1 * torch.randn(2, 4, 9, dtype=torch.float64, generator=generator(0))
    ids = torch.tensor([False, True, False, True]) if as_mask else torch.tensor([1, 3])
    physics.reset(qpos, qvel)
    envs = [gymnasium_cheetah(5, qpos[i], qvel[i]) for i in range(4)]
    for t, control in enumerate(actions(60, 4)):
        if t % 20 == 15:
            physics.reset(qpos[[1, 3]], qvel[[1, 3]], ids)
            envs[1], envs[3] = (gymnasium_cheetah(5, qpos[i], qvel[i]) for i in (1, 3))
        physics.step(control.clamp(-1, 1), 5)
        for i, env in enumerate(envs):
            env.step(control[i].clamp(-1, 1).double().numpy())
            assert same(physics.qpos[i], physics.qvel[i], env)


@pytest.mark.usefixtures("_exact")
def test_maml2017_observes_and_rewards_as_rllab_does() -> None:
    # rllab calls mj_forward after a step, then reads subtree_com and its velocity: recomputed here
    family: Any = make(NAMES[0])
    model, data = family.model, mujoco.MjData(family.model)
    goals = tasks_of(family, 0.5, 1.5)
    obs = family.reset(goals, 2, generator(0))
    for action in [None, *actions(50, 2, 2)]:
        outcome = None if action is None else family.step(action)
        obs = obs if outcome is None else outcome.obs
        for i, (n, e) in enumerate(np.ndindex(2, 2)):
            data.qpos[:], data.qvel[:] = family._physics.qpos[i], family._physics.qvel[i]
            mujoco.mj_forward(model, data)
            mujoco.mj_subtreeVel(model, data)
            expected = np.concatenate([data.qpos[1:], data.qvel, data.subtree_com[1]])
            assert obs[n, e].numpy() == pytest.approx(expected, abs=1e-12)
            if outcome is not None and action is not None:
                cost = 0.05 * np.square(np.clip(action[n, e].numpy(), -1, 1)).sum()
                missed = abs(data.subtree_linvel[1, 0] - goals.params[n, 0].item())
                assert outcome.reward[n, e].item() == pytest.approx(-missed - cost, abs=1e-12)


@pytest.mark.usefixtures("_exact")
def test_pearl2019_observes_and_rewards_as_gym_does() -> None:
    # Gymnasium, like mujoco-py, leaves the torso's place one substep behind, but for the one after a reset
    family: Any = make(NAMES[1])
    goals = tasks_of(family, 0.5, 2.5)
    obs = family.reset(goals, 1, generator(0))
    state = family._physics
    envs = [gymnasium_cheetah(5, q, v) for q, v in zip(state.qpos, state.qvel, strict=True)]
    for action in [None, *actions(50, 2, 1)]:
        outcome = None if action is None else family.step(action)
        obs = obs if outcome is None else outcome.obs
        for n, env in enumerate(envs):
            if outcome is not None and action is not None:
                torque = action[n, 0].clamp(-1, 1).numpy()
                velocity = env.step(torque)[-1]["x_velocity"]
                expected = -abs(velocity - goals.params[n, 0].item()) - 0.05 * np.square(torque).sum()
                assert outcome.reward[n, 0].item() == pytest.approx(expected, abs=1e-12)
            torso = env.data.body("torso").xpos
            expected = np.concatenate([env.data.qpos[1:], env.data.qvel, torso])
            assert obs[n, 0].numpy() == pytest.approx(expected, abs=1e-12)


def test_the_centre_of_mass_is_mujocos_in_any_pose() -> None:
    family: Any = make(NAMES[0])
    data = mujoco.MjData(family.model)
    for state in 3 * torch.randn(20, 2, 9, dtype=torch.float64, generator=generator(0)):
        x, z, velocity = (value.item() for value in family._centre(*state.unsqueeze(1)))
        data.qpos[:], data.qvel[:] = state
        mujoco.mj_forward(family.model, data)
        mujoco.mj_subtreeVel(family.model, data)
        assert [x, 0, z] == pytest.approx(data.subtree_com[1], abs=1e-10)
        assert velocity == pytest.approx(data.subtree_linvel[1, 0], abs=1e-10)


def test_the_profiling_clock_is_cleared() -> None:
    family: Any = make(NAMES[0])
    data = mujoco.MjData(family.model)
    mujoco.mj_step(family.model, data)
    assert data.timer[mujoco.mjtTimer.mjTIMER_STEP].duration == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_start_is_noisy_as_published_and_does_not_tell_the_task(name: str) -> None:
    family: Any = make(name)
    obs = family.reset(tasks_of(family, 0.2, 1.8), 500, generator(0))
    assert torch.equal(obs, family.reset(tasks_of(family, 1.0, 0.1), 500, generator(0)))
    qpos, qvel = family._physics.qpos, family._physics.qvel
    scale = 0.01 if name.endswith("maml2017") else 0.2 / 12**0.5  # normal; uniform over ±0.1
    assert qpos.std(0).numpy() == pytest.approx(scale, rel=0.1)
    assert qvel.std(0).numpy() == pytest.approx(0.1, rel=0.1)
    if name.endswith("pearl2019"):
        assert qpos.abs().max() <= 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cause", ["action", "state"])
def test_a_simulation_that_breaks_ends_its_own_episode_and_no_other(name: str, cause: str) -> None:
    family: Any = make(name)
    tasks, script = tasks_of(family, 0.5, 1.5), actions(6, 2, 2)
    family.reset(tasks, 2, generator(0))
    sound = [family.step(action) for action in script]
    family.reset(tasks, 2, generator(0))
    for t, action in enumerate(script):
        if t == 3 and cause == "action":
            action[1, 0] = torch.nan
        elif t == 3:
            physics, place = family._physics, torch.tensor([2])
            physics.reset(physics.qpos[place], physics.qvel[place] + torch.nan, place)
        outcome = family.step(action)
        broken = torch.tensor([[False, False], [t >= 3, False]])
        assert torch.equal(outcome.terminated, broken)
        assert torch.equal(outcome.obs[~broken], sound[t].obs[~broken])
        assert torch.equal(outcome.reward[~broken], sound[t].reward[~broken])
        assert outcome.obs.isfinite().all()
        if t == 3:  # 197 of 200 steps are left: as if it stood still in them
            assert outcome.reward[1, 0].item() == pytest.approx(-197 * 1.5)
    family.reset(tasks, 2, generator(0))
    assert not family.step(actions(1, 2, 2)[0]).terminated.any()


def test_a_policy_of_nans_scores_the_floor() -> None:
    family: Any = make(NAMES[1])
    tasks = tasks_of(family, 0.5, 3.0)
    family.reset(tasks, 1, generator(0))
    outcome = family.step(torch.full((2, 1, 6), torch.nan))
    assert outcome.terminated.all()
    assert torch.equal(outcome.reward[:, 0], family.bounds(tasks).floor)


@pytest.mark.parametrize("name", NAMES)
def test_standing_still_earns_about_the_floor_and_nothing_passes_the_oracle(name: str) -> None:
    family: Any = make(name)
    tasks = tasks_of(family, 0.5, 2.0)
    family.reset(tasks, 2, generator(0))
    rewards = torch.stack([family.step(torch.zeros(2, 2, 6)).reward for _ in range(200)])
    bounds = family.bounds(tasks)
    assert rewards.sum(0).mean(1).numpy() == pytest.approx(bounds.floor.numpy(), abs=10)
    assert (rewards.sum(0) < bounds.oracle[:, None]).all()
    short = sum(max(0.0, 2.0 - 0.4 * 9.81 * family.dt * t) for t in range(1, 201))  # while μ g t < 2 m/s
    assert bounds.oracle[1].item() == pytest.approx(-short, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_the_published_ones_and_share_no_task(name: str) -> None:
    family: Any = make(name)
    test, ood = (family.sample_tasks(None, split, generator(0)).params for split in ("test", "ood"))
    (velocity,) = family.task_space
    assert velocity.train_high < ood.min() <= ood.max() <= velocity.high
    if name.endswith("maml2017"):
        np.random.seed(1)  # noqa: NPY002 (the published script)
        published = np.random.uniform(0.0, 2.0, size=(40,))  # noqa: NPY002
        assert test[:, 0].numpy() == pytest.approx(published)
        train = family.sample_tasks(1000, "train", generator(0)).params
    else:
        np.random.seed(1337)  # noqa: NPY002 (the published script)
        published = np.random.uniform(0.0, 3.0, size=(130,))  # noqa: NPY002
        train = family.sample_tasks(None, "train", generator(0)).params
        assert torch.cat([train, test])[:, 0].numpy() == pytest.approx(published)
    assert not torch.isin(train, torch.cat([test, ood])).any()
    assert ((train >= 0) & (train <= velocity.train_high)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_plays_the_same_rounds_and_maml_learns_from_them(name: str) -> None:
    returns = []
    for _ in range(2):
        family, rng = make(name), generator(0)
        agent = MamlTrpo(family.observation_space, family.action_space, rng)
        with device.one_thread():  # torch's threads would wait actively on the physics' cores
            (metrics,) = train(family, agent, rng, iterations=1, rounds=(2, 3), meta_batch_size=2)
        assert np.isfinite([*metrics.values()]).all()
        returns.append((metrics["return_0"], metrics["return_1"]))
    assert returns[0] == returns[1]


def test_what_a_step_returns_does_not_change_with_the_next() -> None:
    family: Any = make(NAMES[0])
    obs = family.reset(tasks_of(family, 1.0), 2, generator(0))
    first = opening(family, obs, ()).obs.clone()
    outcome = family.step(actions(1, 1, 2)[0])
    held = [x.clone() for x in outcome]
    family.step(actions(1, 1, 2, seed=2)[0])
    assert torch.equal(obs, first)
    assert all(torch.equal(a, b) for a, b in zip(outcome, held, strict=True))
    assert outcome.obs.dtype == outcome.reward.dtype == torch.float32
