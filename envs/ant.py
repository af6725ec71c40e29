"""Ants that are not told how fast, which way, or where to go; none of them observes or pays for contacts.

The published ones do both, by cfrc_ext: what old MuJoCo left at zero is alive today, and a batch of
simulations does not give it. The published returns are therefore not those of these families.
"""

import math

import mujoco
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Bounds, TaskParameter, Tasks

from .locomotion import Locomotion
from .physics import gymnasium_model
from .running import Direction, GoalVelocity, Heading

TORSO = 1


class Ant(Locomotion):
    """OpenAI Gym's ant: a step lasts 0.05 s, and the velocity is how far the torso went in it.

    As with mujoco-py, which calls no mj_forward after a step, the torso's place is one substep old.
    """

    file = "ant.xml"
    substeps = 5
    reads: tuple[str, ...] = ("xpos",)
    control_cost = 0.5
    lowest = 0.2  # of the torso, in metres, above which, and below 1.0, it has not fallen

    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        u = torch.rand(n, self.model.nq, generator=rng, device=self.device)
        return 0.2 * u - 0.1, 0.1 * torch.randn(n, self.model.nv, generator=rng, device=self.device)

    def _position(self) -> Tensor:
        return self._physics.read("xpos")[:, TORSO, :2]

    def _observe(self) -> tuple[Tensor, ...]:
        """Positions but x and y, and velocities, 27 in all."""
        return self._physics.qpos[:, 2:], self._physics.qvel

    def _fallen(self) -> Tensor | None:
        height = self._physics.qpos[:, 2]
        return (height < self.lowest) | (height > 1.0)


class AntDirPearl2019(Direction, Ant):
    """Rakelly et al. 2019: ant-dir of katerakelly/oyster, with two directions that are truly opposite.

    There two random ones were drawn without a seed; its forks took the labels -1 and +1 for radians.
    """

    name = "ant-dir/pearl2019"
    summary = "ant forwards or backwards, 200 steps of 0.05 s, without contact terms (Rakelly et al. 2019)"
    bonus = 1.0
    pooled = True


class AntDir2dPromp2019(Heading, Ant):
    """Rothfuss et al. 2019: AntRandDirec2D of jonasrothfuss/ProMP, in 200 steps as in its experiments."""

    name = "ant-dir-2d/promp2019"
    summary = "ant in any direction, 200 steps of 0.05 s, without contact terms (Rothfuss et al. 2019)"
    bonus = 1.0
    lowest = 0.0


class AntVelMaml2017(GoalVelocity, Ant):
    """Finn et al. 2017: AntEnvRand of cbfinn/maml_rl, with its `normalize` wrapper, on Gymnasium's XML.

    A step of 0.02 s is a single Runge-Kutta step; velocity and place are the centre of mass's, after it.
    """

    name = "ant-vel/maml2017"
    summary = "ant at a velocity in [0, 3] m/s, 200 steps of 0.02 s, without contact terms (Finn et al. 2017)"
    substeps = 1
    reads = ("xpos", "xmat", "subtree_com", "sensordata")
    fresh = True
    bonus = 1.05  # +1 beside the velocity's error, and 0.05 for surviving
    control_cost = 0.005
    fastest, accepted = 3.0, 5.0

    def _compile(self) -> mujoco.MjModel:
        def edit(spec: mujoco.MjSpec) -> None:
            velocity, body = mujoco.mjtSensor.mjSENS_SUBTREELINVEL, mujoco.mjtObj.mjOBJ_BODY
            spec.add_sensor(type=velocity, objtype=body, objname="torso")

        return gymnasium_model(self.file, 0.02, edit)

    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(n, self.model.nq + self.model.nv, generator=rng, device=self.device)
        return 0.01 * noise[:, : self.model.nq], 0.1 * noise[:, self.model.nq :]

    def _velocity(self, before: Tensor) -> Tensor:
        return self._physics.read("sensordata")[:, :1].clone()

    def _observe(self) -> tuple[Tensor, ...]:
        """Positions, velocities, the torso's rotation matrix and the centre of mass, 41 in all."""
        physics = self._physics
        rotation, centre = (physics.read(name)[:, TORSO] for name in ("xmat", "subtree_com"))
        return physics.qpos, physics.qvel, rotation.flatten(1), centre


class AntGoalPearl2019(Ant):
    """Rakelly et al. 2019: ant-goal of katerakelly/oyster: -‖p - g‖₁ - 0.1 ‖u‖², without an end.

    The published goals were drawn without a seed; these are as they are, from seed 1337.
    """

    name = "ant-goal/pearl2019"
    summary = "ant to a place within 3 m, 200 steps of 0.05 s, without contact terms (Rakelly et al. 2019)"
    control_cost = 0.1
    view = "plane"
    task_space = tuple(TaskParameter(name, "m", -5.0, 5.0, -3.0, 3.0) for name in ("goal_x", "goal_y"))

    def _pools(self) -> dict[str, np.ndarray]:
        rng = np.random.RandomState(1337)
        angle, radius = 2 * math.pi * rng.random(180), np.sqrt(rng.random(180))
        goals = np.stack([np.cos(angle), np.sin(angle)], -1)
        near, far = 3.0 * radius[:, None] * goals, (3.0 + 2.0 * radius[150:, None]) * goals[150:]
        return {"train": near[:150], "test": near[150:], "ood": far}

    def _observe(self) -> tuple[Tensor, ...]:
        """All positions and velocities, 29 in all."""
        return self._physics.qpos, self._physics.qvel

    def goals(self, tasks: Tasks) -> Tensor:
        """Where to go, [N, 2]; the observation begins with where the torso's frame is."""
        return tasks.params

    def _fallen(self) -> None:
        return None

    def _progress(self) -> Tensor:
        return -(self._by_task(self._position()) - self.params).abs().sum(-1)

    def _standing(self, params: Tensor) -> Tensor:
        return -params.abs().sum(-1)

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: stand still. Oracle: straight there, with all the friction that there is, no braking."""
        goal, seconds = tasks.params, self.dt * torch.arange(1, self.horizon + 1, device=self.device)
        distance = goal.norm(dim=-1, keepdim=True)
        missing = (1 - self._grip() / 2 * seconds.square() / distance).clamp(min=0)  # [N, T], of the way
        standing = self._standing(goal)
        return Bounds(self.horizon * standing, standing * missing.sum(-1))
