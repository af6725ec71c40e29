"""A user's MJCF: where it is, what is added before it is compiled, and its fingerprint."""

import hashlib
import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import mujoco
import numpy as np

from metarl import ConfigError

from .config import RobotConfig, Servo, package_of
from .variations import absent, add_payload, centre_payload, name_of

HINGES = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
EXAMPLES = "robosuite_models"  # the package of the robots that ship as examples
# what a model's behaviour depends on, and versions of MuJoCo agree on
PHYSICS = re.compile(
    r"qpos0|qpos_spring|key_qpos|mesh_vert|hfield_(data|size)|exclude_signature|wrap_(type|objid|prm)"
    r"|body_(parentid|pos|quat|mass|inertia|ipos|iquat|gravcomp)"
    r"|jnt_(type|pos|axis|limited|range|stiffness|margin|solref|solimp|actfrclimited|actfrcrange)"
    r"|dof_(damping|armature|frictionloss|solref|solimp)"
    r"|geom_(type|bodyid|size|pos|quat|friction|condim|contype|conaffinity|solref|solimp|margin|gap)"
    r"|geom_(priority|solmix|fluid)|pair_(dim|geom1|geom2|friction|solref|solreffriction|solimp|margin|gap)"
    r"|site_(bodyid|pos|quat)|sensor_(type|objtype|objid|reftype|refid|cutoff)"
    r"|eq_(type|objtype|obj1id|obj2id|data|active0|solref|solimp)"
    r"|tendon_(adr|num|limited|range|margin|stiffness|damping|armature|frictionloss|lengthspring)"
    r"|tendon_(solref_lim|solimp_lim|solref_fri|solimp_fri|actfrclimited|actfrcrange)"
    r"|actuator_(trntype|trnid|gear|cranklength|ctrllimited|ctrlrange|forcelimited|forcerange)"
    r"|actuator_(actlimited|actrange|gaintype|biastype|dyntype|gainprm|biasprm|dynprm)"
)
OPTIONS = (
    *("gravity", "timestep", "integrator", "cone", "impratio", "density", "viscosity", "wind", "magnetic"),
    *("solver", "iterations", "tolerance", "noslip_iterations", "disableflags", "enableflags"),
)
NO_BIAS = mujoco.mjtBias.mjBIAS_NONE
TRN, WRAP = mujoco.mjtTrn, mujoco.mjtWrap


def located(model: str) -> Path:
    """The file of a model; ConfigError where the file, or the package that it is in, is not there.

    The package is looked up, not imported: some do a lot when they are.
    """
    package, path = package_of(model), Path(model)
    if package:
        spec = find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            hint = "; pip install 'metarl-suite[robots]'" if package == EXAMPLES else ""
            raise ConfigError(f"model is {model!r}, but the package {package!r} is not installed{hint}")
        path = Path(spec.submodule_search_locations[0]) / model.partition(":")[2]
    if not path.is_file():
        raise ConfigError(f"model is {model!r}, which is no file ({str(path)!r}); allowed: an MJCF file")
    return path


def compiled(config: RobotConfig) -> mujoco.MjModel:
    """The model with everything that the robot's YAML adds to it.

    ConfigError, that names it, for a bad MJCF or a body, keyframe or actuator that will not do.
    """
    path = located(config.model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # older models use attributes that MuJoCo calls deprecated
            spec = mujoco.MjSpec.from_file(str(path))
            _edit(spec, config)
            model = spec.compile()
    except ConfigError:
        raise
    except (ValueError, RuntimeError, mujoco.FatalError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"model is {config.model!r}, which MuJoCo cannot read: {said}") from None
    for name, variation in config.vary.items():
        if variation.what == "payload":
            centre_payload(model, name)
    return model


def _edit(spec: mujoco.MjSpec, config: RobotConfig) -> None:
    if config.timestep is not None:
        spec.option.timestep = config.timestep
    if config.gravity is not None:
        spec.option.gravity = config.gravity
    if config.servo:
        _add_servos(spec, config.servo, start_pose(spec.compile(), config.start.keyframe))
    if config.floor:
        _add_floor(spec)
    for name, variation in config.vary.items():
        if variation.what == "payload":
            add_payload(spec, name, variation)


def _add_floor(spec: mujoco.MjSpec) -> None:
    """A plane at height 0 that leaves friction to what touches it: of two MuJoCo takes the larger."""
    if spec.geom("floor") is not None:
        raise ConfigError("floor is true, but the model has a geom 'floor' already; allowed: false")
    look = {"type": mujoco.mjtGeom.mjGEOM_PLANE, "size": [0, 0, 0.1], "rgba": [0.75, 0.78, 0.8, 1]}
    spec.worldbody.add_geom(name="floor", friction=[0, 0, 0], **look)


def _add_servos(spec: mujoco.MjSpec, servo: Servo, pose: np.ndarray) -> None:
    """Turn motors into position servos that are as strong as they.

    A motor's torque is gear clip(gain ctrl, forcerange), with ctrl in its ctrlrange.
    """
    model = spec.compile()
    for i, actuator in enumerate(spec.actuators):
        joint, gear = int(model.actuator_trnid[i, 0]), model.actuator_gear[i, 0]
        name = name_of(model, "actuator", i)
        if model.actuator_trntype[i] != mujoco.mjtTrn.mjTRN_JOINT or model.jnt_type[joint] not in HINGES:
            raise ConfigError(f"servo: actuator {name!r} moves no hinge or slide; allowed: no servo here")
        if model.actuator_gaintype[i] != mujoco.mjtGain.mjGAIN_FIXED or model.actuator_biastype[i] != NO_BIAS:
            raise ConfigError(f"servo: actuator {name!r} is no motor; allowed: motors alone, or no servo")
        if not model.actuator_ctrllimited[i]:
            raise ConfigError(f"servo: actuator {name!r} has no ctrlrange, which would limit its torque")
        if servo.range is None and not model.jnt_limited[joint]:
            raise ConfigError(f"servo.range is missing; actuator {name!r} moves a joint without a range")
        force = np.sort(model.actuator_gainprm[i, 0] * model.actuator_ctrlrange[i])
        if model.actuator_forcelimited[i]:
            force = force.clip(*model.actuator_forcerange[i])
        actuator.set_to_position(kp=servo.kp, kv=servo.kd)
        limits, centre = model.jnt_range[joint], pose[model.jnt_qposadr[joint]]
        reach = limits if servo.range is None else centre + servo.range * np.array([-1, 1])
        actuator.gear[0], actuator.ctrlrange, actuator.ctrllimited = 1.0, reach, True
        actuator.forcerange, actuator.forcelimited = np.sort(gear * force), True


def start_pose(model: mujoco.MjModel, keyframe: str | None) -> np.ndarray:
    """The positions to start from, [nq]; ConfigError for an unknown keyframe."""
    if keyframe is None:
        return np.array(model.qpos0)
    names = [str(model.key(i).name) for i in range(model.nkey)]
    if keyframe not in names:
        raise ConfigError(f"start.keyframe: {absent('keyframe', keyframe, names)}")
    return np.array(model.key_qpos[names.index(keyframe)])


def action_ranges(model: mujoco.MjModel, wanted: tuple[float, float] | None) -> np.ndarray:
    """What actions of -1 and of 1 are to each actuator, [nu, 2]."""
    if model.nu == 0:
        raise ConfigError("the model has no actuators; allowed: one that an agent can move")
    ranges = np.array(model.actuator_ctrlrange)
    for i in np.flatnonzero(~model.actuator_ctrllimited.astype(bool)):
        if wanted is None:
            name = name_of(model, "actuator", int(i))
            raise ConfigError(f"action_range is missing; actuator {name!r} has no ctrlrange of its own")
        ranges[i] = wanted
    return ranges


def digest(model: mujoco.MjModel) -> str:
    """A fingerprint of what the model's behaviour depends on; what is only seen does not count.

    Of a fraction the leading 16 bits of the mantissa: another processor may round the last ones otherwise.
    """
    found = hashlib.sha256()
    fields = {name: getattr(model, name) for name in dir(model) if PHYSICS.fullmatch(name)}
    for name, values in (fields | {name: getattr(model.opt, name) for name in OPTIONS}).items():
        numbers = np.atleast_1d(values)
        if numbers.dtype.kind == "f":
            rounded = numbers.astype(np.float32) + 0.0  # no -0
            numbers = (rounded.view(np.int32) + 0x40) & ~0x7F
        found.update(f"{name}{numbers.shape}".encode() + numbers.astype("<i8").tobytes())
    return found.hexdigest()[:16]


def root_of(model: mujoco.MjModel, name: str | None) -> int:
    """The body whose velocity, height and uprightness count."""
    if name is None:
        moving = np.flatnonzero(model.body_jntnum)
        return int(moving[0]) if len(moving) else 0
    return index_of(model, "body", name, "root")


def index_of(model: mujoco.MjModel, owner: str, name: str, key: str) -> int:
    """The number of a body, site or sensor; ConfigError, that names the key, where there is none."""
    count = {"body": model.nbody, "site": model.nsite, "sensor": model.nsensor}[owner]
    names = [name_of(model, owner, i) for i in range(count)]
    if name not in names:
        raise ConfigError(f"{key}: {absent(owner, name, names)}")
    return names.index(name)


def travels(model: mujoco.MjModel, root: int) -> list[int]:
    """Where in qpos the root's place along the floor stands, which no observation of positions tells.

    A free joint's x and y, or, as planar robots have it, slides without limits that are not vertical.
    """
    first = model.body_jntadr[root]
    places = list[int]()
    for joint in range(first, first + model.body_jntnum[root]):
        place, kind = int(model.jnt_qposadr[joint]), model.jnt_type[joint]
        if kind == mujoco.mjtJoint.mjJNT_FREE:
            places += [place, place + 1]
        level = kind == mujoco.mjtJoint.mjJNT_SLIDE and abs(model.jnt_axis[joint, 2]) < 0.5
        if level and not model.jnt_limited[joint]:
            places.append(place)
    return places


def driven(model: mujoco.MjModel, root: int) -> bool:
    """Whether an actuator moves the root itself, or nothing fixed to the world can be touched.

    Then friction does not bound how the root speeds up.
    """
    ground = (model.body_weldid[model.geom_bodyid] == 0) & ((model.geom_contype | model.geom_conaffinity) > 0)
    return not ground.any() or any(_pushes(model, i, root) for i in range(model.nu))


def _pushes(model: mujoco.MjModel, actuator: int, root: int) -> bool:
    """Whether an actuator does more than move the parts of a robot against its root or each other."""
    kind, target = int(model.actuator_trntype[actuator]), int(model.actuator_trnid[actuator, 0])
    joints, points = list[int](), list[int]()
    if kind in (TRN.mjTRN_JOINT, TRN.mjTRN_JOINTINPARENT):
        joints.append(target)
    elif kind == TRN.mjTRN_TENDON:
        joints, points = _pulled(model, target)
    else:
        return True  # a thruster, an adhesive, ...
    above, body = {0}, root
    while body:
        above.add(body := int(model.body_parentid[body]))
    own = {int(b) for b in np.flatnonzero(model.body_treeid == model.body_treeid[root])} - above
    return not (own.issuperset(points) and (own - {root}).issuperset(model.jnt_bodyid[joints].tolist()))


def _pulled(model: mujoco.MjModel, tendon: int) -> tuple[list[int], list[int]]:
    """The joints that a tendon moves, or the bodies that it runs along."""
    joints, bodies = list[int](), list[int]()
    first = int(model.tendon_adr[tendon])
    for wrap in range(first, first + int(model.tendon_num[tendon])):
        kind, item = int(model.wrap_type[wrap]), int(model.wrap_objid[wrap])
        if kind == WRAP.mjWRAP_JOINT:
            joints.append(item)
        elif kind == WRAP.mjWRAP_SITE:
            bodies.append(int(model.site_bodyid[item]))
        elif kind in (WRAP.mjWRAP_SPHERE, WRAP.mjWRAP_CYLINDER):
            bodies.append(int(model.geom_bodyid[item]))
    return joints, bodies
