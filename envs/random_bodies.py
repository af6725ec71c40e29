"""Hoppers and walkers whose bodies differ in ways that they are not told: mass, inertia, damping, friction.

r = v + 1 - 0.001 ‖u‖² until they fall. The multipliers are those of dennisl88/rand_param_envs, in which
Rakelly et al. 2019 adapt: 1.5ᵘ on the mass and the inertia of each body and on the friction of each geom,
1.3ᵘ on the damping of each joint, u uniform in [-3, 3]. It is played on today's MuJoCo and Gymnasium's v5
models; derived constants follow the bodies, which they did not there.
"""

import mujoco
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Bounds, TaskParameter, Tasks

from .locomotion import Locomotion
from .physics import gymnasium_model

TRAINED, ACCEPTED = 3.0, 4.0  # the largest exponent u in training, and of what is accepted
FIELDS = {  # the model's field, its base, and the names of what one element of it holds
    "body_mass": (1.5, ("",)),
    "body_inertia": (1.5, (".x", ".y", ".z")),
    "dof_damping": (1.3, ("",)),
    "geom_friction": (1.5, (".slide", ".spin", ".roll")),
}


class RandomBodies(Locomotion):
    """A planar robot, a task of which is an exponent u for every number of its body that is not zero."""

    substeps = 4  # rand_param_envs has it for all its robots
    control_cost = 1e-3
    bonus = 1.0

    def __init__(self, device: torch.device) -> None:
        model = gymnasium_model(self.file)
        self._varied = {field: np.flatnonzero(getattr(model, field)) for field in FIELDS}  # flat places
        self.task_space = tuple(
            TaskParameter(
                _name(model, field, int(place)), "", -ACCEPTED, ACCEPTED, -TRAINED, TRAINED, default=0.0
            )
            for field, places in self._varied.items()
            for place in places
        )
        super().__init__(device)

    # --- the bodies

    def _pools(self) -> dict[str, np.ndarray]:
        """40 training and 10 test bodies as published, from a seed; ood: none lies in the trained range."""
        rng, size = np.random.RandomState(1337), len(self.task_space)
        known = rng.uniform(-TRAINED, TRAINED, (50, size))
        beyond = rng.uniform(-ACCEPTED, ACCEPTED, (10, size))
        beyond[:, 0] = np.sign(beyond[:, 0]) * rng.uniform(TRAINED, ACCEPTED, 10)
        return {"train": known[:40], "test": known[40:], "ood": beyond}

    def _fields(self, params: Tensor) -> dict[str, Tensor]:
        sizes = [len(places) for places in self._varied.values()]
        fields = {}
        for (field, places), u in zip(self._varied.items(), params.split(sizes, -1), strict=True):
            nominal = torch.from_numpy(getattr(self.model, field)).to(params)
            varied = nominal.flatten().repeat(len(params), 1)
            varied[:, places] *= FIELDS[field][0] ** u
            fields[field] = varied.unflatten(1, nominal.shape)
        return fields

    # --- the robot

    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        noise = 0.01 * torch.rand(2, n, self.model.nv, generator=rng, device=self.device) - 0.005
        return noise[0], noise[1]

    def _position(self) -> Tensor:
        return self._physics.qpos[:, :1]

    def _observe(self) -> tuple[Tensor, ...]:
        """Positions but the root's x, and velocities between -10 and 10."""
        return self._physics.qpos[:, 1:], self._physics.qvel.clamp(-10, 10)

    def _standing(self, params: Tensor) -> Tensor:
        return torch.zeros_like(params[:, 0])  # nothing: these robots do not stand by themselves

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: what no torque earns until the robot has fallen, played. Oracle: all of the friction."""
        friction = self._fields(tasks.params)["geom_friction"][..., 0]
        grip = friction.amax(-1) * float(np.linalg.norm(self.model.opt.gravity))
        return Bounds(self._limp(tasks), self.horizon * self.bonus + self._farthest(grip))


def _name(model: mujoco.MjModel, field: str, place: int) -> str:
    """What an element of a field is called in a task: "friction.foot_geom.slide"."""
    row, column = np.unravel_index(place, (len(getattr(model, field)), getattr(model, field)[0].size))
    kind, _, what = field.partition("_")
    owner = {"body": model.body, "geom": model.geom, "dof": lambda i: model.joint(model.dof_jntid[i])}[kind]
    return f"{what}.{owner(row).name}{FIELDS[field][1][column]}"


class HopperParams(RandomBodies):
    """Gymnasium's Hopper-v5 with random bodies."""

    name = "hopper-params/pearl2019"
    summary = "hopper with a random body, 200 steps of 0.008 s (rand_param_envs, Rakelly et al. 2019)"
    file = "hopper.xml"

    def _fallen(self) -> Tensor:
        qpos, qvel = self._physics.qpos, self._physics.qvel
        wild = torch.cat([qpos[:, 2:], qvel], -1).abs().amax(-1) >= 100
        return wild | (qpos[:, 1] <= 0.7) | (qpos[:, 2].abs() >= 0.2)


class Walker2dParams(RandomBodies):
    """Gymnasium's Walker2d-v5 with random bodies."""

    name = "walker2d-params/pearl2019"
    summary = "walker with a random body, 200 steps of 0.008 s (rand_param_envs, Rakelly et al. 2019)"
    file = "walker2d_v5.xml"

    def _fallen(self) -> Tensor:
        height, angle = self._physics.qpos[:, 1:3].unbind(-1)
        return (height <= 0.8) | (height >= 2.0) | (angle.abs() >= 1.0)
