"""How the bodies of a user's robot vary: which fields of the model a task's numbers change, and how."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import mujoco
import numpy as np
import torch
from pydantic import BeforeValidator, Field, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from metarl import STRICT, ConfigError, unknown

from .parameters import Parameter, Range, Ranges

FIELDS = {  # what of a robot varies, in which fields of MjModel; all but the last two by a multiplier
    "mass": ("body_mass",),
    "inertia": ("body_inertia",),
    "density": ("body_mass", "body_inertia"),
    "friction": ("geom_friction",),
    "damping": ("dof_damping",),
    "gain": ("actuator_gainprm", "actuator_biasprm"),  # all of the force: of a servo kp and kd
    "gravity": ("opt.gravity",),
    "payload": ("body_mass", "body_inertia"),
}
UNITS = {"gravity": "m/s²", "payload": "kg"}
PAYLOAD = "payload."  # how the bodies begin that are added
OWNERS = {"body": "body", "geom": "geom", "dof": "joint", "actuator": "actuator"}
LINEAR = {  # what actuators may be for their force to grow with their parameters
    "gaintype": (mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtGain.mjGAIN_AFFINE),
    "biastype": (mujoco.mjtBias.mjBIAS_NONE, mujoco.mjtBias.mjBIAS_AFFINE),
}


@dataclass(frozen=True, config=STRICT)
class Variation:
    """What differs between tasks in one number, and from which ranges that comes."""

    what: Literal["mass", "inertia", "density", "friction", "damping", "gain", "gravity", "payload"]
    """What varies; density is mass and inertia together, gain an actuator's whole force."""
    range: Range
    """In training: a multiplier of the model's own, kg for a payload, m/s² for gravity."""
    of: Annotated[
        tuple[str, ...], Field(min_length=1), BeforeValidator(lambda x: (x,) if isinstance(x, str) else x)
    ] = ("*",)
    """Bodies (mass, inertia, density, payload), geoms (friction), joints (damping) or actuators (gain)."""
    test: Range | None = None
    """In the test pool; none: as in training."""
    ood: Ranges = ()
    """Beyond training, a range or two; none: as in training."""
    log: bool = False
    """Uniform in the logarithm, so that halves are as frequent as doubles."""
    at: Annotated[tuple[float, ...], Field(min_length=3, max_length=3)] = (0.0, 0.0, 0.0)
    """Where the payload's centre is, in the frame of the body that carries it, in metres."""
    size: PositiveFloat = 0.05
    """Radius of the payload, a solid sphere that touches nothing, in metres."""

    def parameter(self, name: str) -> Parameter:
        """The task's number, checked."""
        key = f"vary.{name}"
        relative = self.what not in UNITS
        unit = "" if relative else UNITS[self.what]
        default = 1.0 if relative else 0.0 if self.what == "payload" else None
        found = Parameter(name, key, unit, self.range, self.test or self.range, self.ood, self.log, default)
        found.check(0.0, self.what not in ("mass", "inertia", "density"))
        if self.what == "payload" and (len(self.of) != 1 or "*" in self.of[0]):
            raise ConfigError(f"{key}.of is {[*self.of]}; allowed for a payload: the body that carries it")
        return found


def payload_body(name: str) -> str:
    """The body that a payload is: it is welded on, so that all follows which MuJoCo makes of a body."""
    return f"{PAYLOAD}{name}"


def absent(owner: str, name: str, names: Iterable[str]) -> ConfigError:
    """The error for the name of a body, site, ... that is not in the model, with those that are its own."""
    own = [x for x in names if x and not (owner == "body" and (x == "world" or x.startswith(PAYLOAD)))]
    return unknown(owner, name, own) if own else ConfigError(f"unknown {owner} {name!r}; the model has none")


def add_payload(spec: mujoco.MjSpec, name: str, load: Variation) -> None:
    """Weld an empty body to the one that carries the load; a task gives it its mass."""
    carrier = spec.body(load.of[0])
    if carrier is None or carrier.name == "world":
        names = [body.name for body in spec.bodies]
        raise ConfigError(f"vary.{name}.of: {absent('body', load.of[0], names)}")
    body = carrier.add_body(name=payload_body(name), pos=load.at)
    sphere = mujoco.mjtGeom.mjGEOM_SPHERE
    touching = {"contype": 0, "conaffinity": 0}
    body.add_geom(type=sphere, size=[load.size, 0, 0], mass=0, rgba=[0.8, 0.4, 0, 1], **touching)


def centre_payload(model: mujoco.MjModel, name: str) -> None:
    """Put the centre of mass of a compiled payload, which had no mass yet, into its frame's origin."""
    model.body_ipos[model.body(payload_body(name)).id] = 0


class Varied:
    """The model's fields as a function of the tasks' numbers."""

    def __init__(self, model: mujoco.MjModel, variations: Mapping[str, Variation]) -> None:
        self._variations = [(v, _rows(model, name, v)) for name, v in variations.items()]
        self._variations.sort(key=lambda pair: pair[0].what in UNITS)  # what is set, after what is multiplied
        self._columns = [[*variations.values()].index(v) for v, _ in self._variations]
        fields = {field for v, _ in self._variations for field in FIELDS[v.what]}
        self._nominal = {field: torch.from_numpy(_field(model, field).copy()) for field in sorted(fields)}
        down = np.array(model.opt.gravity)
        self._down = torch.from_numpy(down / np.linalg.norm(down) if down.any() else np.array([0, 0, -1.0]))

    def fields(self, params: Tensor) -> dict[str, Tensor]:
        """All fields that vary, [n, ...] each, from the numbers [n, V] of the variations."""
        n = len(params)
        fields = {name: x.to(params).expand(n, *x.shape).clone() for name, x in self._nominal.items()}
        for (variation, rows), column in zip(self._variations, self._columns, strict=True):
            x = params[:, column, None]
            if variation.what == "gravity":
                fields["opt.gravity"] = x * self._down.to(params)
            elif variation.what == "payload":
                fields["body_mass"][:, rows] = x  # a solid sphere: I = 2/5 m r²
                fields["body_inertia"][:, rows] = (0.4 * variation.size**2 * x)[..., None]
            else:
                for name in FIELDS[variation.what]:
                    field = fields[name]
                    field[:, rows] *= x.view(n, *[1] * (field.ndim - 1))
        return fields


def _field(model: mujoco.MjModel, name: str) -> np.ndarray:
    owner: Any = model.opt if name.startswith("opt.") else model
    return np.asarray(getattr(owner, name.removeprefix("opt.")))


def _rows(model: mujoco.MjModel, name: str, variation: Variation) -> list[int]:
    """Which rows of its fields a variation changes; ConfigError for what is not there or cannot vary."""
    what, key = variation.what, f"vary.{name}.of"
    if what == "gravity":
        return []
    if what == "payload":
        return [model.body(payload_body(name)).id]
    field = FIELDS[what][0]
    owner = OWNERS[field.partition("_")[0]]
    found = _named(model, owner, variation.of, key)
    rows = [i for i in range(model.nv) if model.dof_jntid[i] in found] if owner == "joint" else found
    if not _field(model, field)[rows].any():
        raise ConfigError(f"{key} is {[*variation.of]}, whose {what} is 0, and so is any multiple of it")
    for kind, allowed in LINEAR.items() if what == "gain" else ():
        if not np.isin(getattr(model, f"actuator_{kind}")[rows], [int(x) for x in allowed]).all():
            raise ConfigError(f"{key} is {[*variation.of]}; allowed for gain: motors and servos, no muscles")
    return rows


def _named(model: mujoco.MjModel, owner: str, patterns: tuple[str, ...], key: str) -> list[int]:
    """Numbers of the bodies, geoms, joints or actuators that some pattern names; all but the world."""
    count = {"body": model.nbody, "geom": model.ngeom, "joint": model.njnt, "actuator": model.nu}[owner]
    first = int(owner == "body")
    names = {i: name_of(model, owner, i) for i in range(first, count)}
    found = set[int]()
    for pattern in patterns:
        hits = {i for i, name in names.items() if fnmatchcase(name, pattern)}
        if not hits:
            raise ConfigError(f"{key}: {absent(owner, pattern, set(names.values()))}")
        found |= hits
    return sorted(found)


def name_of(model: mujoco.MjModel, owner: str, i: int) -> str:
    """What the i-th of its kind is called; a geom without a name is called after its body."""
    name = str(getattr(model, owner)(i).name)
    return name or (str(model.body(model.geom_bodyid[i]).name) if owner == "geom" else "")
