"""A humanoid that is not told which way to run; it neither observes nor pays for contacts (see ant.py)."""

import torch
from torch import Generator, Tensor

from metarl import Bounds, Tasks

from .running import Heading


class HumanoidDirPearl2019(Heading):
    """Rakelly et al. 2019: humanoid-dir of katerakelly/oyster, with its NormalizedBoxEnv.

    0.25 times how far the centre of mass went in the step's 0.015 s, divided by the 0.003 s of a
    substep: an inherited factor of five, so that a metre a second is worth 1.25. The centre of mass is one
    substep old. The published angles were drawn without a seed; these are as they are, from seed 1337.
    """

    name = "humanoid-dir/pearl2019"
    summary = "humanoid in a direction, 200 steps of 0.015 s, without contact terms (Rakelly et al. 2019)"
    file = "humanoid.xml"
    substeps = 5
    reads = ("xipos", "cinert", "cvel", "qfrc_actuator")
    control_cost = 0.1
    bonus = 5.0
    weight = 1.25
    train_angles = 100

    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        qpos, qvel = self.model.nq, self.model.nv
        noise = 0.02 * torch.rand(n, qpos + qvel, generator=rng, device=self.device) - 0.01
        return noise[:, :qpos], noise[:, qpos:]

    def _position(self) -> Tensor:
        mass = torch.from_numpy(self.model.body_mass).to(self._physics.qpos)
        return mass @ self._physics.read("xipos")[..., :2] / mass.sum()

    def _observe(self) -> tuple[Tensor, ...]:
        """Positions but x and y, velocities, inertias, bodies' velocities, actuators' forces; 292 in all."""
        physics = self._physics
        derived = (physics.read(name).flatten(1) for name in ("cinert", "cvel", "qfrc_actuator"))
        return physics.qpos[:, 2:], physics.qvel, *derived

    def _fallen(self) -> Tensor:
        height = self._physics.qpos[:, 2]
        return (height < 1.0) | (height > 2.0)

    def bounds(self, tasks: Tasks) -> Bounds:
        """As of all who run, but the floor: without torque it does not stand. That is played."""
        return super().bounds(tasks)._replace(floor=self._limp(tasks))
