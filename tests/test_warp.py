"""The physics engine for GPUs on warp's CPU device: all but the CUDA stream, against the CPU engine."""

import math
import sys
from functools import cache
from importlib import import_module
from typing import Any

import mujoco
import pytest
import torch
from torch import Tensor

from metarl import ConfigError, generator, train
from metarl.agents import MamlTrpo
from metarl.envs import Physics, gymnasium_model, make, simulate

N = 4
WarpPhysics: Any = import_module("metarl.envs.physics").WarpPhysics  # where families need not look
CPU = torch.device("cpu")
READ = ("xpos", "xmat", "xipos", "cinert", "cvel", "qfrc_actuator")


def elliptic(spec: mujoco.MjSpec) -> None:
    """Round friction cones: mujoco_warp turns the edges of pyramids below steep capsules."""
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC


MODELS = {
    "half_cheetah": gymnasium_model("half_cheetah.xml"),  # Euler, pyramids
    "ant": gymnasium_model("ant.xml", edit=elliptic),  # Runge-Kutta, a free joint
}


@cache
def engine(name: str, fresh: bool = False) -> Physics:
    """The engine, built once: its kernels are compiled for half a minute where warp's cache is empty."""
    pytest.importorskip("mujoco_warp", reason="needs the extra gpu: pip install 'metarl-suite[gpu]'")
    physics: Physics = WarpPhysics(MODELS[name], N, CPU, fresh)
    for field in READ:
        physics.read(field)
    return physics


def start(name: str) -> tuple[Tensor, Tensor]:
    """Positions and velocities, near the initial pose."""
    model, rng = MODELS[name], generator(0)
    qpos = torch.from_numpy(model.qpos0) + 0.05 * torch.randn(N, model.nq, generator=rng)
    return qpos.float(), 0.1 * torch.randn(N, model.nv, generator=rng)


def controls(name: str, steps: int) -> Tensor:
    return 2 * torch.rand(steps, N, MODELS[name].nu, generator=generator(1)) - 1


def assert_close(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Half of all numbers to 2e-5, all but a hundredth to 5e-4: contacts can open a substep apart."""
    error = torch.cat([(ours.cpu() - theirs).abs().flatten() for ours, theirs in pairs])
    assert error.median() <= 2e-5
    assert error.quantile(0.99) <= 5e-4


def forced(name: str, physics: Physics, fields: dict[str, Tensor], steps: int = 30) -> None:
    """Both engines play single steps from the states of a rollout, cold; compare where they arrive."""
    reference, rollout = simulate(MODELS[name], N), simulate(MODELS[name], N)
    arrays = [(physics.read(field), reference.read(field)) for field in READ]
    arrays += [(physics.qpos, reference.qpos), (physics.qvel, reference.qvel)]
    for each in (physics, reference, rollout):
        each.vary(fields)
    rollout.reset(*start(name))
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in arrays]
    for control in controls(name, steps):
        qpos, qvel = rollout.qpos.float(), rollout.qvel.float()
        for each in (physics, reference):
            each.reset(qpos, qvel)
        assert_close(arrays)
        for each in (physics, reference):
            assert not each.step(control, 5).any()
        for pairs, (ours, theirs) in zip(found, arrays, strict=True):
            pairs.append((ours.clone(), theirs.clone()))
        rollout.step(control, 5)
    for pairs in found:
        assert_close(pairs)


@pytest.mark.parametrize("name", MODELS)
def test_single_steps_are_those_of_the_cpu(name: str) -> None:
    forced(name, engine(name), {})


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_single_steps_on_a_gpu_are_those_of_the_cpu(name: str) -> None:
    engine(name)  # skips where the packages are missing
    forced(name, simulate(MODELS[name], N, "cuda"), {})


def test_bodies_that_differ_do_so_as_on_the_cpu() -> None:
    name, model = "half_cheetah", MODELS["half_cheetah"]
    physics = WarpPhysics(model, N, engine(name).qpos.device)
    physics.step(torch.zeros(N, model.nu), 5)  # what has been captured by now must not outlive the change
    factor = torch.tensor([0.5, 0.8, 1.2, 2.0])[:, None]
    fields = {
        "body_mass": factor * torch.from_numpy(model.body_mass),
        "body_inertia": factor[:, None] * torch.from_numpy(model.body_inertia),
        "geom_friction": factor[:, None] * torch.from_numpy(model.geom_friction),
        "dof_damping": factor * torch.from_numpy(model.dof_damping),
        "actuator_gainprm": factor[:, None] * torch.from_numpy(model.actuator_gainprm),
        "opt.gravity": factor * torch.tensor([0.0, 0.0, -9.81]),
    }
    forced(name, physics, fields)
    forced(name, physics, {field: values.flip(0) for field, values in fields.items()}, steps=5)
    same = [x[:1].expand(N, -1) for x in (*start(name), controls(name, 1)[0])]
    physics.reset(same[0], same[1])
    physics.step(same[2], 5)
    assert len(physics.qvel.unique(dim=0)) == N


def test_a_reset_touches_its_own_rows_alone() -> None:
    name = "half_cheetah"
    physics, script = engine(name), controls(name, 6)
    played = []
    for ids in (None, torch.tensor([1, 3]), torch.tensor([False, True, False, True])):
        physics.reset(*start(name))
        rows = [physics.qpos, physics.qvel, *(physics.read(field) for field in READ)]
        for t, control in enumerate(script):
            if t == 3 and ids is not None:
                before = [x.clone() for x in rows]
                qpos, qvel = start(name)
                physics.reset(qpos[[1, 3]], qvel[[1, 3]], ids)
                assert all(torch.equal(x[::2], y[::2]) for x, y in zip(rows, before, strict=True))
                assert torch.equal(physics.qpos[1::2], start(name)[0][1::2])
            physics.step(control, 2)
        played.append([x.clone() for x in rows])
    whole, *partial = played
    for rows in partial:
        for x, y in zip(whole, rows, strict=True):
            assert torch.equal(x[::2], y[::2])
        assert not torch.equal(whole[0][1::2], rows[0][1::2])
        physics.reset(*start(name))  # the solver's warm start is forgotten, too
        for control in script[3:]:
            physics.step(control, 2)
        assert torch.equal(physics.qpos[1::2], rows[0][1::2])


@pytest.mark.parametrize("cause", ["control", "nan", "fast"])
def test_what_breaks_is_told_stays_finite_and_harms_no_other(cause: str) -> None:
    name = "half_cheetah"
    physics, script, others = engine(name), controls(name, 5), [0, 1, 3]
    if cause == "control":
        script[2, 2] = 0  # what MuJoCo makes of a bad control
        others = [0, 1, 2, 3]
    physics.reset(*start(name))
    sound = []
    for control in script:
        assert not physics.step(control, 2).any()
        sound.append(physics.qpos.clone())
    physics.reset(*start(name))
    for t, control in enumerate(script):
        if t == 2 and cause == "control":
            control[2, 0] = torch.nan
        elif t == 2:
            physics.qvel[2, 0] = torch.nan if cause == "nan" else 1e15
        assert physics.step(control, 2).tolist() == [False, False, t >= 2, False]
        assert torch.equal(physics.qpos[others], sound[t][others])
        for x in (physics.qpos, physics.qvel, *(physics.read(field) for field in READ)):
            assert x.isfinite().all()
    qpos, qvel = start(name)
    physics.reset(qpos[2:3], qvel[2:3], torch.tensor([2]))
    assert not physics.step(script[0], 2).any()


def with_sensor(spec: mujoco.MjSpec) -> None:
    spec.add_sensor(
        type=mujoco.mjtSensor.mjSENS_SUBTREELINVEL, objtype=mujoco.mjtObj.mjOBJ_BODY, objname="torso"
    )


def test_fresh_arrays_describe_the_state_after_the_step() -> None:
    place, name = engine("half_cheetah").qpos.device, "half_cheetah"
    model = gymnasium_model("half_cheetah.xml", edit=with_sensor)
    both: list[Physics] = [WarpPhysics(model, N, place, fresh=True), simulate(model, N, fresh=True)]
    arrays = [[p.read(field) for p in both] for field in ("xpos", "sensordata")]
    for control in controls(name, 3):
        for physics in both:
            physics.reset(*start(name))
            physics.step(control, 3)
        assert_close([(ours, theirs) for ours, theirs in arrays])
        torso = arrays[0][0][:, 1, 0]
        assert torch.equal(torso, both[0].qpos[:, 0])  # the root's x: a stale one would be a substep behind


@pytest.mark.parametrize(
    "name", ["half-cheetah-vel/maml2017", "half-cheetah-vel/pearl2019", "hopper-params/pearl2019"]
)
def test_families_play_and_learn_on_it_as_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco_warp", reason="needs the extra gpu: pip install 'metarl-suite[gpu]'")
    reference = make(name)
    locomotion = import_module("metarl.envs.locomotion")
    monkeypatch.setattr(locomotion, "simulate", lambda model, n, _, *rest: WarpPhysics(model, n, CPU, *rest))
    family = make(name)
    tasks = family.sample_tasks(2, "test", generator(0))
    first = [world.reset(tasks, 2, generator(1)) for world in (family, reference)]
    assert torch.equal(*first)
    for action in 0.5 * torch.randn(5, 2, 2, *family.action_space.shape, generator=generator(2)):
        ours, theirs = family.step(action), reference.step(action)
        assert torch.allclose(ours.obs, theirs.obs, atol=1e-3)
        assert torch.allclose(ours.reward, theirs.reward, atol=1e-2)  # a velocity is a place over a step
        assert torch.equal(ours.terminated, theirs.terminated)
    rng = generator(0)
    agent = MamlTrpo(family.observation_space, family.action_space, rng, MamlTrpo.Config(hidden=(4,)))
    (metrics,) = train(family, agent, rng, iterations=1, rounds=(2, 2), meta_batch_size=2)
    assert all(math.isfinite(value) for value in metrics.values())


def test_too_little_room_for_contacts_is_an_error_that_says_what_to_raise() -> None:
    place = engine("half_cheetah").qpos.device
    physics = WarpPhysics(MODELS["half_cheetah"], N, place, capacity={"njmax": 2})
    qpos = start("half_cheetah")[0] - torch.eye(9)[1] * 0.2  # into the floor
    physics.reset(qpos, torch.zeros(N, 9))
    for _ in range(15):  # looking waits for a GPU: it does at a reset and at each sixteenth step
        physics.step(torch.zeros(N, 6), 1)
    with pytest.raises(ConfigError, match=r"njmax is 2, .*family\.capacity = \{'njmax': \.\.\.\}"):
        physics.step(torch.zeros(N, 6), 1)
    with pytest.raises(ConfigError, match="njmax"):
        physics.reset(qpos, torch.zeros(N, 9))


def test_what_it_cannot_do_is_an_error_that_names_it() -> None:
    physics = engine("half_cheetah")
    with pytest.raises(ConfigError, match="'xpso'"):
        physics.read("xpso")
    with pytest.raises(ConfigError, match="'qLD'"):
        physics.read("qLD")
    with pytest.raises(ConfigError, match=r"'body_mass'.*\(8,\)"):
        physics.vary({"body_mass": torch.ones(8)})
    with pytest.raises(ConfigError, match=r"'opt.density' is 0"):
        physics.vary({"opt.density": torch.ones(N)})
    with pytest.raises(ConfigError, match=r"'opt.impratio'"):
        physics.vary({"opt.impratio": torch.ones(N)})
    with pytest.raises(ConfigError, match=r"does not run on a GPU.*PGS"):
        WarpPhysics(gymnasium_model("humanoid.xml"), N, CPU)


def test_a_package_that_is_missing_is_an_error_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    with pytest.raises(ConfigError, match=r"pip install 'metarl-suite\[gpu\]'"):
        WarpPhysics(MODELS["half_cheetah"], N, CPU)
