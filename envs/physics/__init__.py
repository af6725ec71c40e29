"""Many simulations of one MuJoCo model, side by side: the interface that families see, and its engines."""

import warnings
from importlib.resources import files
from typing import Protocol

import mujoco
from torch import Tensor

from .batch import CpuPhysics


class Physics(Protocol):
    """n simulations of one model; qpos and qvel are the live state, in the engine's precision and place."""

    n: int
    qpos: Tensor  # [n, nq]
    qvel: Tensor  # [n, nv]

    def reset(self, qpos: Tensor, qvel: Tensor, ids: Tensor | None = None) -> None:
        """Start all simulations afresh, or those of a mask [n] or of sorted ids, from one row each."""

    def step(self, control: Tensor, substeps: int) -> Tensor:
        """Hold a control, [n, nu], for some substeps; [n], bool: what has diverged since its reset.

        A diverged simulation harms no other one; its state stays finite, and means nothing.
        """


def simulate(model: mujoco.MjModel, n: int) -> Physics:
    """n simulations of a model, on the CPU."""
    return CpuPhysics(model, n)


def gymnasium_model(name: str) -> mujoco.MjModel:
    """A model that comes with Gymnasium, by way of a spec: loading the file writes a log where one stands."""
    path = files("gymnasium.envs.mujoco") / "assets" / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these models use attributes that MuJoCo calls deprecated
        return mujoco.MjSpec.from_file(str(path)).compile()


__all__ = ["CpuPhysics", "Physics", "gymnasium_model", "simulate"]
