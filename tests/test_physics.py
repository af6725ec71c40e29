"""The physics engine on the CPU: Gymnasium's in every bit, whatever is reset, varied or broken."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from metarl import ConfigError, device, generator
from metarl.envs import gymnasium_model, simulate

FILES = {
    "HalfCheetah-v5": "half_cheetah.xml",
    "Hopper-v5": "hopper.xml",
    "Walker2d-v5": "walker2d_v5.xml",
    "Ant-v5": "ant.xml",
    "Humanoid-v5": "humanoid.xml",
}
READ = ("xpos", "xipos", "cinert", "cvel", "qfrc_actuator")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warnings where one stands


class Beside:
    """n simulations of ours, and beside each an environment of Gymnasium's in the same state."""

    def __init__(self, name: str, n: int) -> None:
        self.model, rng = gymnasium_model(FILES[name]), generator(0)
        self.ours = simulate(self.model, n)
        self.read = {field: self.ours.read(field) for field in READ}
        self.envs: list[Any] = [gym.make(name).unwrapped for _ in range(n)]
        noise = 0.05 * torch.randn(n, self.model.nq, generator=rng, dtype=torch.float64)
        self.qpos = torch.from_numpy(self.model.qpos0) + noise
        self.qvel = 0.1 * torch.randn(n, self.model.nv, generator=rng, dtype=torch.float64)
        low, high = torch.from_numpy(self.model.actuator_ctrlrange).unbind(-1)
        u = torch.rand(200, n, self.model.nu, generator=rng, dtype=torch.float64)
        self.controls = low + u * (high - low)  # [200, n, nu]

    def reset(self, ids: Tensor | None = None) -> None:
        rows = slice(None) if ids is None else ids
        self.ours.reset(self.qpos[rows], self.qvel[rows], ids)
        for i in torch.arange(len(self.envs))[rows].tolist():
            self.envs[i].reset(seed=0)  # the solver starts cold, as ours does
            self.envs[i].set_state(self.qpos[i].numpy(), self.qvel[i].numpy())

    def step(self, control: Tensor) -> None:
        assert not self.ours.step(control, self.envs[0].frame_skip).any()
        for env, row in zip(self.envs, control.numpy(), strict=True):
            env.do_simulation(row, env.frame_skip)

    def assert_same(self) -> None:
        for i, env in enumerate(self.envs):
            assert np.array_equal(self.ours.qpos[i], env.data.qpos)
            assert np.array_equal(self.ours.qvel[i], env.data.qvel)
            for field, values in self.read.items():
                assert np.array_equal(values[i], getattr(env.data, field)), field


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", FILES)
def test_two_hundred_steps_are_gymnasiums_in_every_bit(
    name: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "workers", lambda: threads)
    both = Beside(name, 4)
    both.reset()
    both.assert_same()  # derived arrays are current after a reset
    for control in both.controls:
        both.step(control)
        both.assert_same()


@pytest.mark.parametrize("ids", [torch.tensor([0, 2]), torch.tensor([True, False, True, False])])
@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Ant-v5"])
def test_what_is_reset_in_between_leaves_the_others_as_they_were(name: str, ids: Tensor) -> None:
    both = Beside(name, 4)
    both.reset()
    for t, control in enumerate(both.controls[:60]):
        if t % 20 == 15:
            both.reset(ids)
            both.assert_same()
        both.step(control)
        both.assert_same()


def scaled(model: mujoco.MjModel, n: int) -> dict[str, Tensor]:
    """Masses, inertias, frictions and dampings of n bodies, each entry times a factor of 1.5^±1."""
    rng = generator(1)
    found = {}
    for name in ("body_mass", "body_inertia", "geom_friction", "dof_damping"):
        value = torch.from_numpy(getattr(model, name))
        factor = 1.5 ** (2 * torch.rand(n, *value.shape, generator=rng, dtype=torch.float64) - 1)
        found[name] = value * factor
    return found


@pytest.mark.parametrize("name", FILES)
def test_bodies_that_differ_are_gymnasiums_with_its_model_changed(name: str) -> None:
    both = Beside(name, 3)
    fields = scaled(both.model, 3)
    fields["opt.gravity"] = torch.tensor([0.0, 0.0, -9.81]).double() * torch.tensor([[0.8], [1.0], [1.2]])
    for _ in range(2):  # again, with other values
        both.ours.vary(fields)
        for i, env in enumerate(both.envs):
            for field, values in fields.items():
                owner = env.model.opt if field == "opt.gravity" else env.model
                getattr(owner, field.removeprefix("opt."))[:] = values[i].numpy()
            mujoco.mj_setConst(env.model, env.data)
        both.reset()
        for control in both.controls[:100]:
            both.step(control)
            both.assert_same()
        fields = {"body_mass": fields["body_mass"].flip(0), "geom_friction": fields["geom_friction"].flip(0)}


def with_sensor(spec: mujoco.MjSpec) -> None:
    """A sensor of the torso's subtree's velocity."""
    spec.add_sensor(
        type=mujoco.mjtSensor.mjSENS_SUBTREELINVEL, objtype=mujoco.mjtObj.mjOBJ_BODY, objname="torso"
    )


@pytest.mark.parametrize("name", ["half_cheetah.xml", "ant.xml"])
def test_fresh_arrays_describe_the_state_after_the_step(name: str) -> None:
    model = gymnasium_model(name, timestep=0.004, edit=with_sensor)
    assert model.opt.timestep == 0.004
    stale, fresh = (simulate(model, 2, fresh=f) for f in (False, True))
    qpos = torch.from_numpy(model.qpos0).expand(2, -1)
    arrays = [[p.read(field) for field in ("xpos", "cvel", "sensordata")] for p in (stale, fresh)]
    for physics in (stale, fresh):
        physics.reset(qpos, torch.zeros(2, model.nv))
    rng, data = generator(0), mujoco.MjData(model)
    for control in torch.rand(20, 2, model.nu, generator=rng):
        stale.step(control, 3)
        fresh.step(control, 3)
        assert torch.equal(stale.qpos, fresh.qpos)
        assert torch.equal(stale.qvel, fresh.qvel)
        for i in range(2):
            data.qpos[:], data.qvel[:] = fresh.qpos[i], fresh.qvel[i]
            mujoco.mj_forward(model, data)
            for old, new, field in zip(*arrays, ("xpos", "cvel", "sensordata"), strict=True):
                assert np.array_equal(new[i], getattr(data, field)), field
                assert not np.array_equal(old[i], new[i]), field


@pytest.mark.parametrize("name", ["half_cheetah.xml", "hopper.xml", "ant.xml"])
@pytest.mark.parametrize("cause", ["control", "nan", "fast"])
def test_what_breaks_is_told_stays_finite_and_harms_no_other(name: str, cause: str) -> None:
    model = gymnasium_model(name)
    sound, broken = simulate(model, 8), simulate(model, 8)
    rng = generator(0)
    arrays = [p.read("xpos") for p in (sound, broken)]
    qpos = torch.from_numpy(model.qpos0).expand(8, -1)
    qvel = 0.1 * torch.randn(8, model.nv, generator=rng, dtype=torch.float64)
    for physics in (sound, broken):
        physics.reset(qpos, qvel)
    for t, control in enumerate(2 * torch.rand(8, 8, model.nu, generator=rng) - 1):
        assert not sound.step(control, 2).any()
        if t == 3 and cause == "control":
            control[5, 0] = torch.nan
        elif t == 3:  # the speed overtakes Runge-Kutta's stages, which MuJoCo does not look at
            wild = torch.nan if cause == "nan" else 1e6 * (-1.0) ** torch.arange(model.nv)
            place = torch.tensor([5])
            broken.reset(broken.qpos[place], 0 * broken.qvel[place] + wild, place)
        ended = broken.step(control, 2)
        assert ended.tolist() == [i == 5 and t >= 3 for i in range(8)]
        others = torch.arange(8) != 5
        assert torch.equal(broken.qpos[others], sound.qpos[others])
        assert torch.equal(arrays[1][others], arrays[0][others])
        for x in (broken.qpos, broken.qvel, arrays[1]):
            assert (x.abs() <= 1e10).all()
    broken.reset(qpos[5:6], qvel[5:6], torch.tensor([5]))
    assert not broken.step(torch.zeros(8, model.nu), 1).any()


def test_what_the_last_substep_breaks_is_told_at_once() -> None:
    # accelerations below 1e10 are sound to MuJoCo, and Runge-Kutta's later stages are not looked at
    model = gymnasium_model("hopper.xml")
    physics = simulate(model, 500)
    qpos = torch.from_numpy(model.qpos0).expand(500, -1)
    physics.reset(qpos, 1e4 * torch.randn(500, model.nv, generator=generator(0), dtype=torch.float64))
    ended = torch.zeros(500, dtype=torch.bool)
    for _ in range(10):
        now = physics.step(torch.zeros(500, model.nu), 1)
        assert (now | ~ended).all()
        ended = now
        assert (physics.qpos.abs() <= 1e10).all()
        assert (physics.qvel.abs() <= 1e10).all()
    assert ended.sum() > 100


def test_what_is_not_there_is_an_error_that_names_it() -> None:
    physics = simulate(gymnasium_model("hopper.xml"), 2)
    with pytest.raises(ConfigError, match="'xpso'"):
        physics.read("xpso")
    with pytest.raises(ConfigError, match=r"'cfrc_ext'.*sensor"):
        physics.read("cfrc_ext")
    with pytest.raises(ConfigError, match="'body_mas'"):
        physics.vary({"body_mas": torch.ones(2, 5)})
    with pytest.raises(ConfigError, match=r"'body_mass'.*\(5,\).*\(2, 5\)"):
        physics.vary({"body_mass": torch.ones(5)})
