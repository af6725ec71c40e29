"""A user's own robot: MuJoCo's physics with its numbers, the rewards' formulas, errors that name things."""

import re
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
import yaml

from metarl import ConfigError, Tasks, generator
from metarl.envs import GymnasiumView, RobotConfig, check_family, make, named_tasks
from metarl.experiments import config, main
from metarl.runs import Run
from metarl.settings import keys

ROOT = Path(__file__).parents[1]
study: Any = import_module("metarl.experiments.study")
EXAMPLES = ("arm_reach", "quadruped_payload")
REAL = pytest.mark.skipif(find_spec("robosuite_models") is None, reason="needs the extra robots")

# a box on two legs, one on a motor and one on a servo; {...} are what a task may change, here as it is
MJCF = """
<mujoco model="strider">
  <option timestep="0.005" gravity="0 0 -{gravity}"/>
  <default><geom friction="{friction} 0.005 0.0001"/></default>
  <worldbody>
    <geom name="ground" type="plane" size="0 0 1" friction="0.5 0.005 0.0001"/>
    <body name="torso" pos="0 0 0.5">
      <freejoint/>
      <inertial pos="0.01 0 0" mass="{mass}" diaginertia="{inertia} {inertia} {inertia}"/>
      <geom name="box" type="box" size="0.2 0.1 0.05" mass="0"/>
      <site name="nose" pos="0.25 0 0"/>
      <body name="left" pos="0 0.15 0">
        <joint name="left_hip" axis="0 1 0" damping="{damping}"/>
        <geom name="left_foot" type="capsule" fromto="0 0 0 0.05 0 -0.4" size="0.03" mass="0.5"/>
      </body>
      <body name="right" pos="0 -0.15 0">
        <joint name="right_hip" axis="0 1 0" range="-60 60" damping="{damping}"/>
        <geom name="right_foot" type="capsule" fromto="0 0 0 0.05 0 -0.4" size="0.03" mass="0.5"/>
      </body>
      {payload}
    </body>
  </worldbody>
  <actuator>
    <general name="motor" joint="left_hip" ctrlrange="-2 2" gainprm="{motor}"/>
    <position name="servo" joint="right_hip" ctrlrange="-0.25 0.75" kp="{kp}" kv="{kv}"/>
  </actuator>
  <sensor><accelerometer name="imu" site="nose"/></sensor>
  <keyframe><key name="crouch" qpos="0 0 0.46 1 0 0 0 0.2 0.2"/></keyframe>
</mujoco>
"""
NOMINAL: dict[str, Any] = {"gravity": 9.81, "friction": 0.7, "mass": 2, "inertia": 0.02, "damping": 0.3}
NOMINAL |= {"motor": 1.5, "kp": 20, "kv": 0.5, "payload": ""}
LOAD = '<body pos="0.1 0 0.2"><geom type="sphere" size="0.5" mass="{}" contype="0" conaffinity="0"/></body>'
VARY: dict[str, Any] = {"pull": {"what": "gravity", "range": [5, 10], "ood": [3, 5]}}
TREE: dict[str, Any] = {
    "name": "strider",
    "model": "strider.xml",
    "substeps": 4,
    "horizon": 10,
    "test_tasks": 5,
    "vary": VARY,
    "observe": ["positions", "velocities", "height", "up", "site:nose", "body:left", "sensor:imu"],
    "reward": [{"term": "alive"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "strider.xml").write_text(MJCF.format(**NOMINAL))
    return tmp_path


def robot(folder: Path, **changes: Any) -> Any:
    path = folder / "robot.yaml"
    path.write_text(yaml.safe_dump(TREE | changes))
    return make(path)


def given(family: Any, **values: float) -> Tasks:
    return named_tasks(family, [values])


def act(family: Any, steps: int, tasks: Tasks) -> torch.Tensor:
    """The actions of an episode in one task, [T, 1, 1, A], some of them beyond -1 and 1."""
    family.reset(tasks, 1, generator(0))
    return torch.randn(steps, 1, 1, *family.action_space.shape, generator=generator(1))


def replayed(model: mujoco.MjModel, family: Any, actions: torch.Tensor) -> list[mujoco.MjData]:
    """What MuJoCo makes of the same start and actions, after each step."""
    data, found = mujoco.MjData(model), []
    data.qpos, data.qvel = family.qpos[0, 0].numpy(), family._physics.qvel[0].numpy()
    low, high = model.actuator_ctrlrange.T
    for action in actions.double().clamp(-1, 1).numpy()[:, 0, 0]:
        data.ctrl = (low + high) / 2 + (high - low) / 2 * action
        mujoco.mj_step(model, data, nstep=4)
        found.append(mujoco.MjData(model))
        found[-1].qpos, found[-1].qvel = data.qpos, data.qvel
        mujoco.mj_kinematics(model, found[-1])
    return found


# --- what varies is what MuJoCo makes of a model with those numbers


@pytest.mark.parametrize(
    ("variation", "value", "numbers"),
    [
        ({"what": "mass", "of": "torso"}, 1.5, {"mass": 3.0}),
        ({"what": "inertia", "of": ["torso"]}, 1.5, {"inertia": 0.02 * 1.5}),
        ({"what": "density", "of": "tor*"}, 1.5, {"mass": 3.0, "inertia": 0.02 * 1.5}),
        ({"what": "friction", "of": ["*_foot", "box"]}, 1.5, {"friction": 0.7 * 1.5, "spin": True}),
        ({"what": "damping", "of": "*_hip"}, 1.5, {"damping": 0.3 * 1.5}),
        ({"what": "gain"}, 1.5, {"motor": 1.5 * 1.5, "kp": 30.0, "kv": 0.75}),
        ({"what": "gravity"}, 5.5, {"gravity": 5.5}),
        ({"what": "payload", "of": "torso", "at": [0.1, 0, 0.2], "size": 0.5}, 0.5, {"payload": LOAD}),
    ],
    ids=lambda x: x["what"] if isinstance(x, dict) and "what" in x else "",
)
def test_a_variation_is_what_mujoco_compiles(
    folder: Path, variation: dict[str, Any], value: float, numbers: dict[str, Any]
) -> None:
    varied = {**variation, "range": [0.25, 2], "ood": [2, 9]}
    family = robot(folder, vary={"x": varied}, start={"keyframe": "crouch"})
    actions = act(family, 10, given(family, x=value))
    xml = MJCF.format(**NOMINAL | {k: v.format(value) if k == "payload" else v for k, v in numbers.items()})
    if "spin" in numbers:  # the multiplier is on all three coefficients; the ground has its own
        xml = xml.replace(
            f'"{numbers["friction"]} 0.005 0.0001"', f'"{0.7 * 1.5} {0.005 * 1.5} {0.0001 * 1.5}"'
        )
    theirs = replayed(mujoco.MjModel.from_xml_string(xml), family, actions)
    nominal = replayed(mujoco.MjModel.from_xml_string(MJCF.format(**NOMINAL)), family, actions)
    for action, data in zip(actions, theirs, strict=True):
        family.step(action)
        np.testing.assert_array_equal(family.qpos[0, 0].numpy(), data.qpos)
    assert np.abs(theirs[-1].qpos - nominal[-1].qpos).max() > 1e-4  # the number does something


def test_tasks_side_by_side_each_have_their_own_numbers(folder: Path) -> None:
    load = {"what": "payload", "of": "torso", "range": [0, 1]}
    vary = {"load": load, "x": {"what": "mass", "range": [0.5, 2], "ood": [2, 3]}, **VARY}
    family = robot(folder, vary=vary)
    one, other = {"load": 0.25, "x": 0.5, "pull": 6.0}, {"load": 1.0, "x": 2.0, "pull": 9.0}
    family.reset(named_tasks(family, [one, other]), 2, generator(0))
    fields, model = family._physics.varied(), family.model
    np.testing.assert_allclose(fields["opt.gravity"][:, 2], [-6, -6, -9, -9])
    np.testing.assert_allclose(fields["body_mass"][:, model.body("torso").id], [1, 1, 4, 4])
    np.testing.assert_allclose(fields["body_mass"][:, model.body("payload.load").id], [0.25, 0.25, 1, 1])
    assert model.body_mass[model.body("torso").id] == 2  # the model itself stays as it is


def test_a_payload_moves_the_centre_of_mass_and_the_inertia(folder: Path) -> None:
    """By the parallel axis theorem: as one rigid body, I = Σ I_i + m_i (d_i·d_i 1 - d_i d_iᵀ)."""
    m, load, r = 2.0, 0.75, 0.1
    c, p = np.array([0.01, 0, 0]), np.array([-0.1, 0.05, 0.2])
    family = robot(folder, vary={"x": {"what": "payload", "of": "torso", "range": [0, 1], "ood": [1, 2]}
                                 | {"at": p.tolist(), "size": r}})  # fmt: skip
    actions = act(family, 10, given(family, x=load))
    centre = (m * c + load * p) / (m + load)
    steiner = [w * (d @ d * np.eye(3) - np.outer(d, d)) for w, d in ((m, c - centre), (load, p - centre))]
    inertia = 0.02 * np.eye(3) + 0.4 * load * r**2 * np.eye(3) + sum(steiner)
    full = " ".join(map(str, inertia[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]))
    alone = '<inertial pos="0.01 0 0" mass="2" diaginertia="0.02 0.02 0.02"/>'
    place = " ".join(map(str, centre))
    loaded = f'<inertial pos="{place}" mass="{m + load}" fullinertia="{full}"/>'
    model = mujoco.MjModel.from_xml_string(MJCF.format(**NOMINAL).replace(alone, loaded))
    theirs = replayed(model, family, actions)
    for action, data in zip(actions, theirs, strict=True):
        family.step(action)
        np.testing.assert_allclose(family.qpos[0, 0].numpy(), data.qpos, atol=1e-9)


# --- rewards, observations, actions, ends


def test_rewards_and_observations_are_their_formulas(folder: Path) -> None:
    terms = [
        {"term": "forward_velocity", "cap": 0.1, "weight": 2},
        {"term": "target_velocity", "target": [0, 1], "ood": [1, 2], "weight": 3},
        {"term": "reach", "site": "nose", "target": [0.5, [0, 1], [0, 1]], "weight": 5},
        {"term": "upright", "weight": 7},
        {"term": "alive", "weight": 11},
        {"term": "control_cost", "weight": 13},
    ]
    family = robot(folder, reward=terms, horizon=10)
    task = given(family, pull=9.0, velocity=0.25, goal_y=0.5, goal_z=0.75)
    actions = act(family, 10, task)
    model, before = mujoco.MjModel.from_xml_string(MJCF.format(**NOMINAL | {"gravity": 9})), 0.0
    torso, left = model.body("torso").id, model.body("left").id
    start = family.reset(task, 1, generator(0))
    assert (start[0, 0, -3:] == 0).all()  # of the accelerometer, which would tell the gravity
    for action, data in zip(actions, replayed(model, family, actions), strict=True):
        outcome, nose = family.step(action), data.site("nose").xpos
        v, up = (data.xpos[torso, 0] - before) / 0.02, data.xmat[torso].reshape(3, 3)[2]
        before = data.xpos[torso, 0]
        u = action.clamp(-1, 1).numpy()
        wanted = 2 * min(v, 0.1) - 3 * abs(v - 0.25) - 5 * np.linalg.norm(nose - [0.5, 0.5, 0.75])
        wanted += 7 * up[2] + 11 - 13 * (u**2).sum()
        assert outcome.reward.item() == pytest.approx(wanted, rel=1e-5)
        seen = [data.qpos[2:], data.qvel, data.xpos[torso, 2:], up, nose, data.xpos[left]]
        np.testing.assert_allclose(outcome.obs[0, 0, :-3], np.concatenate(seen), rtol=1e-5, atol=1e-6)
        assert outcome.obs[0, 0, -3:].abs().max() > 1e-3


def test_an_episode_ends_where_the_root_is_too_low_or_leans_too_far(folder: Path) -> None:
    family = robot(folder, terminate={"height": [0.3, 1], "upright": 0.5}, horizon=100)
    family.reset(given(family, pull=9.0), 1, generator(0))
    actions = torch.randn(100, 1, 1, 2, generator=generator(0))
    ended = []
    for action in actions:
        ended.append(bool(family.step(action).terminated))
        height, up = family._physics.qpos[0, 2], family._rotation()[0, 2, 2]
        assert ended[-1] == bool((height < 0.3) | (height > 1) | (up < 0.5))
    assert any(ended)
    assert not ended[0]


def test_what_breaks_the_simulation_stands_still_for_the_rest_and_is_not_paid(folder: Path) -> None:
    reach = {"term": "reach", "site": "nose", "target": [0.25, 0, [0.7, 0.9]], "weight": 2}
    family = robot(folder, reward=[{"term": "alive"}, reach, {"term": "upright"}])
    family.reset(given(family, pull=9.0, goal_z=0.8), 1, generator(0))
    physics = family._physics
    physics.reset(physics.qpos, 0 * physics.qvel + 1e12)
    outcome = family.step(torch.zeros(1, 1, 2))
    assert outcome.terminated.item()
    assert outcome.reward.item() == pytest.approx(-10 * 2 * 0.3)  # 10 steps, 0.3 m below the goal


def test_servos_hold_the_start_pose_with_the_motors_limits(folder: Path) -> None:
    motor = '<motor name="servo" joint="right_hip" gear="-2" ctrlrange="-0.25 0.75" forcerange="-9 0.5"/>'
    (folder / "strider.xml").write_text(re.sub("<position .*/>", motor, MJCF.format(**NOMINAL)))
    family = robot(folder, servo={"kp": 50, "kd": 2, "range": 0.4}, start={"keyframe": "crouch"}, floor=False)
    model = family.model
    np.testing.assert_allclose(model.actuator_ctrlrange, [[-0.2, 0.6]] * 2)
    np.testing.assert_allclose(model.actuator_gainprm[:, 0], 50)
    np.testing.assert_allclose(model.actuator_biasprm[:, 1:3], [[-50, -2]] * 2)
    # of the left one 1.5 [-2, 2]; of the right one -2 [-0.25, min(0.75, 0.5)]
    np.testing.assert_allclose(model.actuator_forcerange, np.array([[-3.0, 3.0], [-1.0, 0.5]]))


def test_the_floor_is_what_the_action_0_earns_and_the_oracle_the_highest_of_each_term(folder: Path) -> None:
    terms = [{"term": "forward_velocity"}, {"term": "upright", "weight": 2}]
    family = robot(folder, reward=terms, horizon=30)
    tasks = family.sample_tasks(None, "test", generator(0))
    floor, oracle = family.bounds(tasks)
    grip = 0.7 * tasks.params[:, 0]  # the feet's friction is above the ground's
    running = grip * 0.02 * torch.arange(1, 31).sum()
    torch.testing.assert_close(oracle, 2 * 30 + running)
    family.reset(tasks, 2, generator(0))
    idle = torch.stack([family.step(torch.zeros(5, 2, 2)).reward for _ in range(30)])
    torch.testing.assert_close(floor, idle.sum(0).mean(1))


TENDON = '</actuator><tendon><{0} name="t">{1}</{0}></tendon>'.format
NOSE, WORLD = '<site site="nose"/>', '<site site="post"/>'


@pytest.mark.parametrize(
    ("actuator", "root", "outside"),
    [
        ('<motor joint="right_hip" ctrlrange="-1 1"/>', "torso", False),
        ('<general jointinparent="right_hip" ctrlrange="-1 1"/>', "torso", False),
        ('<motor joint="right_hip" ctrlrange="-1 1"/>', "left", True),  # its own joint has the other motor
        ('<motor joint="right_hip" ctrlrange="-1 1"/>', "toe", True),  # on the end of a driven leg
        ('<motor site="nose" gear="9 0 0 0 0 0" ctrlrange="-1 1"/>', "torso", True),
        ('<adhesion body="left" gain="9" ctrlrange="0 1"/>', "torso", True),
        ('<motor joint="cart" ctrlrange="-1 1"/>', "torso", True),  # what may push the robot
        ('<motor tendon="t" ctrlrange="-1 1"/>'
         + TENDON("fixed", '<joint joint="right_hip" coef="1"/>'), "torso", False),
        ('<motor tendon="t" ctrlrange="-1 1"/>'
         + TENDON("fixed", '<joint joint="cart" coef="1"/>'), "torso", True),
        ('<motor tendon="t" ctrlrange="-1 1"/>'
         + TENDON("spatial", NOSE + '<site site="heel"/>'), "torso", False),
        ('<motor tendon="t" ctrlrange="-1 1"/>' + TENDON("spatial", NOSE + WORLD), "torso", True),
    ],
)  # fmt: skip
def test_a_speed_without_a_cap_is_for_robots_that_only_friction_drives(
    folder: Path, actuator: str, root: str, outside: bool
) -> None:
    xml = re.sub("<position .*/>", actuator, MJCF.format(**NOMINAL))
    xml = xml.replace("</tendon>\n  </actuator>", "</tendon>")
    inside = '<body name="toe" pos="0.05 0 -0.4"><site name="heel"/></body>'
    xml = xml.replace('<geom name="left_foot"', f'{inside}<geom name="left_foot"')
    cart = '<site name="post"/><body pos="0 2 1"><joint name="cart" type="slide"/><geom size="0.1"/></body>'
    (folder / "strider.xml").write_text(xml.replace("<worldbody>", f"<worldbody>{cart}"))
    runs: dict[str, Any] = {"root": root, "reward": [{"term": "forward_velocity"}]}
    if not outside:
        assert robot(folder, **runs).bounds(given(robot(folder, **runs), pull=9.0)).oracle > 0
        return
    with pytest.raises(ConfigError, match=r"forward_velocity.cap is missing"):
        robot(folder, **runs)


@pytest.mark.parametrize("grip", [0.1, 0.4])
def test_on_the_added_floor_the_robots_own_friction_counts(folder: Path, grip: float) -> None:
    xml = re.sub('<geom name="ground".*/>', "", MJCF.format(**NOMINAL))
    (folder / "strider.xml").write_text(xml)
    vary = {"grip": {"what": "friction", "of": "*_foot", "range": [0.5, 1], "ood": [0.1, 0.5]}}
    runs = [{"term": "forward_velocity"}]
    family = robot(folder, vary=vary, floor=True, start={"keyframe": "crouch"}, reward=runs)
    tasks = given(family, grip=grip)
    torch.testing.assert_close(family._grips(tasks.params), torch.tensor([0.7 * 9.81]).double())  # the box's
    family.reset(tasks, 1, generator(0))
    for _ in range(5):
        family.step(torch.zeros(1, 1, 2))
    model, data = mujoco.MjModel.from_xml_string(xml), mujoco.MjData(family.model)
    assert model.ngeom == family.model.ngeom - 1
    family.model.geom_friction[:] = family._physics.varied()["geom_friction"][0]
    data.qpos = family.qpos[0, 0]
    data.qpos[2] -= 0.05
    mujoco.mj_forward(family.model, data)
    assert data.ncon >= 2
    np.testing.assert_allclose([contact.friction[0] for contact in data.contact], 0.7 * grip)


# --- tasks


def test_pools_and_training_come_from_their_ranges(folder: Path) -> None:
    vary = {
        "a": {"what": "mass", "range": [0.25, 4], "log": True, "ood": [[0.1, 0.2], [5, 6]]},
        "b": {"what": "damping", "range": [1, 2], "test": [1.5, 2]},
    }
    family = robot(folder, vary=vary, test_tasks=200)
    train, test, ood = (
        family.sample_tasks(2000 if split == "train" else None, split, generator(0)).params
        for split in ("train", "test", "ood")
    )
    assert train[:, 0].median() == pytest.approx(1, abs=0.15)  # as many halves as doubles
    assert train[:, 1].median() == pytest.approx(1.5, abs=0.05)
    assert train[:, 0].min() >= 0.25
    assert train[:, 0].max() <= 4
    assert test[:, 1].min() >= 1.5
    low, high = ood[:, 0] < 0.2001, ood[:, 0] >= 5
    assert (low | high).all()
    assert low.any()
    assert high.any()
    assert family.task_space[0][2:6] == (0.1, 6, 0.25, 4)
    again = make(folder / "robot.yaml").sample_tasks(None, "ood", generator(9)).params
    assert torch.equal(again, ood)
    assert not torch.equal(robot(folder, vary=vary, test_tasks=200, seed=1).pools["ood"], ood)


def test_a_robot_is_a_family_like_any_other(folder: Path) -> None:
    reward = [{"term": "reach", "site": "nose", "target": [0.5, [0, 1], 0.5]}, {"term": "alive"}]
    vary = VARY | {"load": {"what": "payload", "of": "torso", "range": [0, 1]}}
    check_family(robot(folder, vary=vary, reward=reward, terminate={"height": [0.3, 1]}))
    env = GymnasiumView(make(folder / "robot.yaml"))
    assert env.reset(seed=0)[1]["task"].keys() == {"pull", "load", "goal_y"}


# --- errors


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda tree: tree.pop(key)


def change(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda tree: tree.update(changes)


def vary(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return change(vary={"x": {"what": "mass", "range": [0.5, 2], "ood": [2, 3]} | changes})


def reward(**term: Any) -> Callable[[dict[str, Any]], Any]:
    return change(reward=[term])


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (without("model"), "model is missing"),
        (change(horizn=5), "unknown key 'horizn'.*did you mean 'horizon'"),
        (change(horizon=0), "horizon is 0"),
        (change(start={"nose": 1}), "unknown key 'start.nose'.*did you mean 'start.noise'"),
        (change(model="gone.xml"), r"model is '.*gone.xml', which is no file"),
        (change(model="no_such_package:x.xml"), "model is .*the package 'no_such_package' is not installed"),
        (change(model="bad.xml"), "model is '.*bad.xml', which MuJoCo cannot read: .*MISMATCHED_ELEMENT"),
        (change(start={"keyframe": "crouched"}), "start.keyframe: unknown keyframe 'crouched'.*'crouch'"),
        (change(root="toros"), "root: unknown body 'toros'.*did you mean 'torso'"),
        (change(vary={}), "vary is empty and no target is a range"),
        (change(vary={"x": 5}), "vary.x"),
        (vary(of="toros"), "vary.x.of: unknown body 'toros'.*did you mean 'torso'"),
        (vary(what="weight"), "vary.x.what is 'weight'; input should be 'mass'"),
        (vary(range=[3, 1]), r"vary.x.range is \[3, 1\]; allowed: two numbers, low < high"),
        (vary(range=[0, 1]), r"vary.x.range is \[0.0, 1.0\]; allowed: above 0"),
        (vary(ood=[1, 4]), r"vary.x.ood is \[1.0, 4.0\]; allowed: what does not overlap the range"),
        (vary(ood=[]), "ood is missing; allowed: a range beyond training for x"),
        (vary(what="payload", of="*"), r"vary.x.of is \['\*'\]; allowed for a payload: the body"),
        (vary(what="payload", of="toros"), "vary.x.of: unknown body 'toros'"),
        (vary(what="payload", of="torso", range=[-1, 2]), r"x.range is \[-1.0, 2.0\]; allowed: 0 or more"),
        (vary(what="friction", of="foot"), "vary.x.of: unknown geom 'foot'.*did you mean"),
        (vary(what="damping", of="hip"), "vary.x.of: unknown joint 'hip'"),
        (vary(what="gain", of="sevro"), "vary.x.of: unknown actuator 'sevro'.*did you mean 'servo'"),
        (vary(what="friction", log=True, range=[0, 2]), r"vary.x.range is \[0.0, 2.0\]; allowed: above 0"),
        (change(observe=["position"]), "observe has 'position'; allowed: positions"),
        (change(observe=["site:nos"]), "observe: unknown site 'nos'.*did you mean 'nose'"),
        (change(observe=["sensor:gyro"]), "observe: unknown sensor 'gyro'"),
        (reward(term="alife"), "unknown term of the reward 'alife'.*did you mean 'alive'"),
        (reward(weight=1), "reward has {'weight': 1}; allowed: term: forward_velocity or"),
        (reward(term="alive", weight=-1), "reward.alive.weight is -1"),
        (reward(term="reach", target=[0, 0, [0, 1]]), "reward.reach.site is missing"),
        (reward(term="reach", site="nos", target=[0, 0, [0, 1]]), "reward: unknown site 'nos'"),
        (change(terminate={"height": [1, 2]}), r"terminate.height is \[1.0, 2.0\], but the robot starts at"),
        (reward(term="reach", site="nose", target=[0, 0, [0, 1]], ood=[None, [1, 2], None]),
         r"reward.reach.y.ood is .*, but the target is 0; allowed: none"),
        (reward(term="target_velocity", target=1, test=[1, 2]), "target_velocity.test is .*the target is 1"),
        (reward(term=["alive"]), r"unknown term of the reward \['alive'\]"),
        (vary(what="payload", of=[]), r"vary.x.of is \[\]"),
        (vary(what="payload", of="torsos"), "allowed: left, right, torso; did you mean 'torso'"),
        (vary(what="payload", of="world"), "unknown body 'world'; allowed: left, right, torso$"),
        (change(root="load", vary=VARY | {"load": {"what": "payload", "of": "torso", "range": [0, 1]}}),
         "root: unknown body 'load'; allowed: left, right, torso$"),
        (change(model="a\0b"), r"model is 'a\\x00b', which is no file"),
        (change(model="a\nb"), r"model is '.*a\\nb', which is no file"),
        *[(change(vary={x: VARY["pull"]}), r"vary\..*\[key\] is .*; allowed: one line")
          for x in ("", "a\nb", "a\n", "a=b", "\r")],
        *[(change(name=x), "name is .*; allowed: one line, without =") for x in ("", "a\nb", "a=b")],
        (change(model="bare.xml", observe=["site:nos"]), "observe: unknown site 'nos'; the model has none"),
        (change(model="floor.xml", floor=True), "floor is true, but the model has a geom 'floor' already"),
        (change(servo={"kp": 9, "range": 1}), "servo: actuator 'servo' is no motor"),
        (change(name="ant-vel/maml2017"), "name is 'ant-vel/maml2017', which is a family's already"),
        (change(model="free.xml"), "action_range is missing; actuator 'motor' has no ctrlrange"),
        (change(model="high.xml", reward=[{"term": "forward_velocity"}]), "forward_velocity.cap is missing"),
    ],
)  # fmt: skip
def test_every_mistake_is_named(
    folder: Path, break_it: Callable[[dict[str, Any]], Any], message: str
) -> None:
    xml = MJCF.format(**NOMINAL)
    (folder / "bad.xml").write_text(xml.replace("<body", "<bodi", 1))
    (folder / "free.xml").write_text(xml.replace('ctrlrange="-2 2"', ""))
    (folder / "bare.xml").write_text(re.sub(r"<(site|sensor).*/.*>", "", xml))
    (folder / "floor.xml").write_text(xml.replace('"ground"', '"floor"'))
    (folder / "high.xml").write_text(re.sub(r'<geom name="ground".*/>', "", xml))
    tree = {**TREE}
    break_it(tree)
    (folder / "robot.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=message) as error:
        make(folder / "robot.yaml")
    assert "\n" not in str(error.value)


def test_what_is_no_robot_and_no_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"family is \[1\]; allowed: a name, the path of a robot's YAML"):
        make([1])  # type: ignore[arg-type]


def test_an_action_range_stands_in_for_a_missing_ctrlrange(folder: Path) -> None:
    (folder / "strider.xml").write_text(MJCF.format(**NOMINAL).replace('ctrlrange="-2 2"', ""))
    family = robot(folder, action_range=[-3, 1])
    np.testing.assert_allclose(family._control(torch.tensor([-1.0, 0.0])), [-3, 0.25])


# --- runs

TINY = ["--iterations=1", "--meta_batch_size=2", "--rounds=[2,2]", "--evaluation.rounds=[2,2]"]
TINY += ["--agent.hidden=[4]", "--tensorboard=false"]


@pytest.fixture
def run(folder: Path) -> Path:
    """A finished run, whose robot's YAML is gone."""
    (folder / "robot.yaml").write_text(yaml.safe_dump(TREE))
    experiment = {"family": "robot.yaml", "agent": {"name": "maml_trpo"}}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    out = folder / "run"
    assert (
        main(["train", str(folder / "experiment.yaml"), "--out", str(out), "--family.horizon=7", *TINY]) == 0
    )
    (folder / "robot.yaml").unlink()
    return out


def test_a_run_is_enough_for_all_that_follows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = yaml.safe_load((run / "run.yaml").read_text())["family"]
    assert (kept["name"], kept["horizon"], len(kept["digest"])) == ("strider", 7, 16)
    for command in (
        ["evaluate", str(run), "--split", "ood"],
        ["adapt", str(run), "--task", "pull=7"],
        ["report", str(run)],
    ):
        assert main(command) == 0, command
    assert "strider" in (run / "report.html").read_text()
    assert main(["adapt", str(run), "--task", "pul=7"]) == 2
    assert "did you mean 'pull'" in capsys.readouterr().err


def test_a_changed_model_is_refused_and_a_comment_is_no_change(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, resume = folder / "strider.xml", ["train", "--resume", str(run), "--iterations", "2"]
    xml = model.read_text()
    model.write_text(xml.replace("<mujoco", "<!-- the same --><mujoco"))
    assert main(["evaluate", str(run)]) == 0
    model.write_text(xml.replace('damping="0.3"', 'damping="0.31"'))
    assert main(resume) == 2
    assert re.search(r"error: model is '.*strider.xml', which has changed since", capsys.readouterr().err)
    model.write_text(xml)
    shutil.move(model, folder / "elsewhere.xml")
    assert main(resume) == 2
    assert "which is no file" in capsys.readouterr().err
    text = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(text.replace("strider.xml", "elsewhere.xml"))
    assert main(resume) == 0


def test_a_robot_may_stand_in_the_experiment_or_on_the_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "inline.yaml").write_text(yaml.safe_dump({"family": TREE, "agent": {"name": "maml_trpo"}}))
    inline = config.build(config.read(folder / "inline.yaml"))
    (folder / "robot.yaml").write_text(yaml.safe_dump(TREE))
    monkeypatch.chdir(folder)
    tree = config.override(config.read("quickstart"), {"family": "robot.yaml"})
    assert config.build(tree).family == inline.family
    assert config.build(config.to_tree(inline)) == inline
    for family, message in ("gone.yaml", "family is 'gone.yaml'"), ("strder", "unknown family 'strder'"):
        assert main(["train", "quickstart", "--family", family]) == 2
        assert message in capsys.readouterr().err
    assert main(["train", "inline.yaml", "--family.horizn", "3"]) == 2
    assert "unknown key 'family.horizn'" in capsys.readouterr().err


CONTACT = '<contact><exclude body1="left" body2="right"/></contact>'
FIXED = '<tendon><fixed name="t" range="-9 9"><joint joint="left_hip" coef="1"/></fixed></tendon>'


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"box" type', '"box" rgba="1 0 0 1" type', True),
        ('"box" type', '"box" group="3" type', True),
        ("<fixed ", '<fixed group="3" ', True),
        ('"box" type', '"box" priority="1" type', False),
        ('"box" type', '"box" solmix="2" type', False),
        ('range="-60 60"', 'range="-60 60" solreflimit="0.03 1"', False),
        ('range="-60 60"', 'range="-60 60" solimplimit="0.8 0.9 0.01"', False),
        ('range="-60 60"', 'range="-60 60" limited="false"', False),
        ('range="-60 60"', 'range="-60 60" springref="9"', False),
        ('range="-60 60"', 'range="-60 60" solreffriction="0.03 1"', False),
        ('body2="right"', 'body2="torso"', False),
        ("<fixed ", '<fixed stiffness="1" ', False),
        ("<fixed ", '<fixed solimplimit="0.8 0.9 0.01" ', False),
        ('range="-9 9"', 'range="-9 8"', False),
        ('coef="1"', 'coef="2"', False),
        ("<general ", '<general dyntype="filter" ', False),
        ("<general ", '<general gaintype="affine" ', False),
        ("<general ", '<general biastype="affine" ', False),
        ("<general ", '<general forcelimited="false" forcerange="0 1" ', False),
        ("<option ", '<option density="1.2" ', False),
        ("<option ", '<option viscosity="0.1" ', False),
        ("<option ", '<option wind="1 0 0" ', False),
        ("<option ", '<option solver="CG" ', False),
        ("<option ", '<option iterations="5" ', False),
        ("<option ", '<option><flag contact="disable"/></option><option ', False),
        ("<option ", '<option><flag override="enable"/></option><option ', False),
    ],
)  # fmt: skip
def test_the_fingerprint_is_of_what_changes_behaviour(folder: Path, old: str, new: str, same: bool) -> None:
    xml = MJCF.format(**NOMINAL).replace("</mujoco>", f"{CONTACT}{FIXED}</mujoco>")
    assert xml.count(old) == 1
    found = []
    for text in (xml, xml.replace(old, new)):
        (folder / "strider.xml").write_text(text)
        found.append(robot(folder).config.digest)
    assert (found[0] == found[1]) is same


def test_a_robots_own_yaml_is_no_experiment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "robot.yaml").write_text(yaml.safe_dump(TREE))
    assert main(["train", str(folder / "robot.yaml")]) == 2
    assert (
        "this is a robot, no experiment; allowed: an experiment with it under family:"
        in capsys.readouterr().err
    )


def test_a_study_does_not_tell_where_the_model_was(run: Path) -> None:
    experiment = config.build(config.read(run / "run.yaml"))
    assert Path(experiment.family.model).is_absolute()  # type: ignore[union-attr]
    settings = study.summary([experiment], [Run.open(run)])["settings"]
    assert settings["family"]["model"] == "strider.xml"


# --- examples


def test_the_page_shows_a_robot_in_20_lines_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "robots.md").read_text()
    hopper, experiment = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(hopper.splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    Path("hopper.yaml").write_text(hopper)
    Path("hopper_load.yaml").write_text(experiment)
    assert main(["train", "hopper_load.yaml", "--family.test_tasks=3", "--family.horizon=10", *TINY]) == 0
    assert main(["adapt", "runs/hopper_load", "--task", "load=0.8", "--task", "grip=1.5"]) == 0
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace("check_family(", "print("), {})
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert (ROOT / "docs" / target).exists(), target
    for key in keys(RobotConfig):
        assert key == "digest" or f"`{key.partition('.')[0]}" in page or f"**{key}**" in page, key


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_read_without_their_package(name: str) -> None:
    experiment = config.build(config.read(name))
    assert experiment.family_name in ("vx300s-reach", "go2-payload")
    assert "robosuite_models" not in sys.modules


@REAL
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_real_robots_hold_their_pose_and_differ_between_tasks(name: str) -> None:
    family: Any = make(config.build(config.read(name)).family)
    tasks = family.sample_tasks(2, "test", generator(0))
    family.reset(tasks, 1, generator(0))
    for _ in range(30):
        outcome = family.step(torch.zeros(2, 1, *family.action_space.shape))
    assert not outcome.terminated.any()
    joints = slice(-family.action_space.shape[0], -3)  # the arm's wrist is too weak in this model
    sag = (family.qpos[:, 0] - torch.from_numpy(family._pose))[:, joints].abs().amax(-1)
    assert (sag < 0.4).all()
    assert (family.qpos[0] - family.qpos[1]).abs().max() > 1e-3
    assert "robosuite_models" not in sys.modules
