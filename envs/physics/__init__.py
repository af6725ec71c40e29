"""Many simulations of one MuJoCo model, side by side: the interface that families see, and its engines."""

import warnings
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Protocol

import mujoco
import torch
from torch import Tensor

from metarl import device as devices

from .batch import CpuPhysics
from .warp import WarpPhysics


class Physics(Protocol):
    """n simulations of one model; qpos and qvel are their state since the last reset or step, to be read."""

    n: int
    qpos: Tensor  # [n, nq]
    qvel: Tensor  # [n, nv]

    @property
    def state(self) -> Tensor:
        """Positions and velocities side by side, [n, nq + nv]."""

    def reset(self, qpos: Tensor, qvel: Tensor, ids: Tensor | None = None) -> None:
        """Start all simulations afresh, or those of a mask [n] or of sorted ids, from one row each.

        Nothing of what was before counts any more, the solver's warm start included.
        """

    def step(self, control: Tensor, substeps: int) -> Tensor:
        """Hold a control, [n, nu], for some substeps; [n], bool: what has diverged since its reset.

        A diverged simulation harms no other one; its state stays finite, and means nothing.
        """

    def read(self, name: str) -> Tensor:
        """A live array of MjData, [n, ...], as "xpos", "cinert", "qfrc_actuator" or "sensordata".

        Each reset and step refreshes it; ask for it before the first. After a reset it describes the
        state; after a step what mj_step leaves, which is the state before the last substep (with
        Runge-Kutta the last stage's), or, where the engine was built `fresh`, the state after it.
        ConfigError for what is not there, or is computed for sensors alone ("subtree_linvel").
        """

    def vary(self, fields: Mapping[str, Tensor]) -> None:
        """Give fields of MjModel ("body_mass", "opt.gravity") one value a simulation, [n, ...] each.

        The constants that follow from them are computed anew (mj_setConst); reset what is changed.
        ConfigError, that names the field, for an unknown one or a wrong shape.
        """


def simulate(
    model: mujoco.MjModel,
    n: int,
    device: str | torch.device = "cpu",
    fresh: bool = False,
    capacity: Mapping[str, int] | None = None,
) -> Physics:
    """n simulations of a model: in float64 on the CPU's cores, in float32 on a GPU (the extra `gpu`).

    fresh: derived arrays, sensors of place and velocity among them, are those of the state after a
    step, at the cost of computing them once more; accelerations and forces stay a substep old.
    capacity: on a GPU, room for contacts (nconmax, njmax) and other bounds of mujoco_warp's make_data.
    """
    place = devices.resolve(device)
    if place.type == "cpu":
        return CpuPhysics(model, n, fresh)
    return WarpPhysics(model, n, place, fresh, capacity)


def gymnasium_model(
    name: str, timestep: float | None = None, edit: Callable[[mujoco.MjSpec], None] | None = None
) -> mujoco.MjModel:
    """A model that comes with Gymnasium, with another timestep, in seconds, or edited before it is compiled.

    By way of a spec: loading the file writes a log where one stands.
    """
    path = files("gymnasium.envs.mujoco") / "assets" / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these models use attributes that MuJoCo calls deprecated
        spec = mujoco.MjSpec.from_file(str(path))
        if timestep is not None:
            spec.option.timestep = timestep
        if edit is not None:
            edit(spec)
        return spec.compile()


__all__ = ["CpuPhysics", "Physics", "WarpPhysics", "gymnasium_model", "simulate"]
