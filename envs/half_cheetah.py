"""Half-cheetahs that are not told how fast, or which way, to run, after the published conventions.

r = -|v - v_goal| - 0.05 ‖u‖², or ±v - 0.05 ‖u‖², with torques u in [-1, 1]⁶ and no termination.
"""

import mujoco
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Published

from .locomotion import Locomotion
from .running import Direction, GoalVelocity, uniform

HEIGHT = 0.7  # of the torso's frame above the floor, in metres, where the root's height is 0


class CentreOfMass:
    """Where a planar chain's centre of mass is and how it moves: the root, plus an arm u_b for each body b.

    p = p_root + Σ_b u_b exp(iθ_b), with the plane as x - iz, in which a turn by θ about y is exp(iθ), θ_b
    the sum of the hinge angles down to b, and u_b = (m_b c_b + Σ_children m_subtree o_child) / m: what b's
    own mass, at c_b, and the subtrees that hang on it, at o_child, contribute in b's frame.
    """

    def __init__(self, model: mujoco.MjModel, state: Tensor) -> None:
        """For a model whose state has the dtype and the device of `state`."""
        bodies = range(1, model.nbody)
        chain = np.eye(model.nbody)  # [j, b] = 1 where body j is b or one of its ancestors
        moment = model.body_mass[:, None] * model.body_ipos
        for b in bodies:  # parents come first
            parent = model.body_parentid[b]
            chain[:, b] += chain[:, parent]
            moment[parent] += model.body_subtreemass[b] * model.body_pos[b]
        arms = moment[1:] / model.body_subtreemass[1]
        self.chain = torch.from_numpy(chain[1:, 1:]).to(state)  # [B, B]
        # u_b = u + iw, [B] each
        self.u, self.w = (torch.from_numpy(x.copy()).to(state) for x in (arms[:, 0], -arms[:, 2]))

    def __call__(self, qpos: Tensor, qvel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Its x, its height and its velocity along x, [n] each; qpos and qvel are [n, 2 + B]."""
        theta, omega = qpos[:, 2:] @ self.chain, qvel[:, 2:] @ self.chain
        sin, cos = theta.sin(), theta.cos()
        imaginary = sin * self.u + cos * self.w  # of arm_b exp(iθ_b), and it turns with iω_b
        x = qpos[:, 0] + cos @ self.u - sin @ self.w
        return x, qpos[:, 1] + HEIGHT - imaginary.sum(-1), qvel[:, 0] - (omega * imaginary).sum(-1)


class HalfCheetah(Locomotion):
    """OpenAI Gym's half-cheetah: a step lasts 0.05 s, and the velocity is how far the root went in it."""

    file = "half_cheetah.xml"
    substeps = 5
    control_cost = 0.05

    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        u = torch.rand(n, 9, generator=rng, device=self.device)
        return 0.2 * u - 0.1, 0.1 * torch.randn(n, 9, generator=rng, device=self.device)

    def _position(self) -> Tensor:
        return self._physics.qpos[:, :1]

    def _observe(self) -> tuple[Tensor, ...]:
        """Positions but the root's x, and velocities, 17 in all."""
        return self._physics.qpos[:, 1:], self._physics.qvel


class HalfCheetahWithTorso(HalfCheetah):
    """The same, which also observes where the torso's frame is, its absolute x included: 20 in all.

    As with mujoco-py, which calls no mj_forward after a step, that place is one substep (0.01 s) old:
    p - v dt, as positions have moved by the velocity that the substep left.
    """

    def _prepare(self, tasks: int, episodes: int) -> None:
        super()._prepare(tasks, episodes)
        now = torch.zeros(18, 3)  # (x, 0, z) of a state (x, z, ..., x', z', ...)
        now[0, 0] = now[1, 2] = 1
        self._now = now.to(self._physics.qpos)
        self._before = self._now - self.model.opt.timestep * self._now.roll(9, 0)
        self._origin = self._now.new_tensor([0.0, 0.0, HEIGHT])

    def _observe(self) -> tuple[Tensor, ...]:
        torso = torch.addmm(self._origin, self._physics.state, self._before)
        if self._new is not None:
            torso = torch.where(self._new, torch.addmm(self._origin, self._physics.state, self._now), torso)
        return self._physics.state[:, 1:], torso


class HalfCheetahOfRllab(HalfCheetah):
    """rllab's half-cheetah: a step lasts 0.01 s; velocity and place are the centre of mass's, after the step.

    rllab calls mj_forward. It runs on Gymnasium's XML, not on rllab's: the two differ in a camera alone, but
    rllab's MuJoCo was 1.31, so that the published returns are not those of the very same contacts.
    """

    substeps = 1

    def _prepare(self, tasks: int, episodes: int) -> None:
        super()._prepare(tasks, episodes)
        self._centre = CentreOfMass(self.model, self._physics.qpos)

    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(2, n, 9, generator=rng, device=self.device)
        return 0.01 * noise[0], 0.1 * noise[1]

    def _velocity(self, before: Tensor) -> Tensor:
        self._x, self._z, velocity = self._centre(self._physics.qpos, self._physics.qvel)
        return velocity[:, None]

    def _observe(self) -> tuple[Tensor, ...]:
        """Positions but the root's x, velocities and the centre of mass, 20 in all."""
        zero = torch.zeros_like(self._x)
        return *super()._observe(), torch.stack([self._x, zero, self._z], -1)


class HalfCheetahVelMaml2017(GoalVelocity, HalfCheetahOfRllab):
    """Finn et al. 2017: HalfCheetahEnvRand of cbfinn/maml_rl, with its `normalize` wrapper."""

    name = "half-cheetah-vel/maml2017"
    summary = (
        "half-cheetah at a velocity in [0, 2] m/s, 200 steps of 0.01 s, Gymnasium's XML (Finn et al. 2017)"
    )
    fastest, accepted = 2.0, 4.0
    published = (
        Published("MAML", (-129.53, -78.57, -66.62, -60.78), "cbfinn/maml_rl, icml/*.pkl"),
        Published("pretrained", (-158.0, -135.4, -128.5, -133.6), "cbfinn/maml_rl, icml/*.pkl"),
        Published("random init", (-254.8, -254.3, -246.8, -230.8), "cbfinn/maml_rl, icml/*.pkl"),
        Published("oracle policy", (-54.47,), "cbfinn/maml_rl, icml/*.pkl"),
    )


class HalfCheetahVelPearl2019(GoalVelocity, HalfCheetahWithTorso):
    """Rakelly et al. 2019: cheetah-vel of katerakelly/oyster."""

    name = "half-cheetah-vel/pearl2019"
    summary = "half-cheetah at a velocity in [0, 3] m/s, 200 steps of 0.05 s (Rakelly et al. 2019)"
    fastest, accepted = 3.0, 5.0

    def _pools(self) -> dict[str, np.ndarray]:
        velocities = uniform(1337, 130, self.fastest)
        return {"train": velocities[:100], "test": velocities[100:], "ood": self._beyond(30)}


class HalfCheetahVelPromp2019(GoalVelocity, HalfCheetah):
    """Rothfuss et al. 2019: HalfCheetahRandVelEnv of jonasrothfuss/ProMP, with its `normalize` wrapper."""

    name = "half-cheetah-vel/promp2019"
    summary = "half-cheetah at a velocity in [0, 3] m/s, 100 steps of 0.05 s (Rothfuss et al. 2019)"
    horizon = 100
    action_scale = 10.0
    fastest, accepted = 3.0, 5.0


class HalfCheetahVelVaribad2020(GoalVelocity, HalfCheetahWithTorso):
    """Zintgraf et al. 2020: HalfCheetahVel of lmzintgraf/varibad, where a trial is two episodes."""

    name = "half-cheetah-vel/varibad2020"
    summary = "half-cheetah at any velocity in [0, 3] m/s, 200 steps of 0.05 s (Zintgraf et al. 2020)"
    fastest, accepted = 3.0, 5.0


class HalfCheetahVelRobust2023(GoalVelocity, HalfCheetahWithTorso):
    """Greenberg et al. 2023: the wide range of RobustMetaRL, judged by its worst tasks, too."""

    name = "half-cheetah-vel/robust2023"
    summary = "half-cheetah at any velocity in [0, 7] m/s, 200 steps of 0.05 s (Greenberg et al. 2023)"
    fastest, accepted = 7.0, 9.0

    def _pools(self) -> dict[str, np.ndarray]:
        return {"test": uniform(1, 1008, self.fastest), "ood": self._beyond(40)}


class HalfCheetahVelAmago2024(GoalVelocity, HalfCheetah):
    """Grigsby et al. 2024: HalfCheetahV4_MetaVelocity of AMAGO, where a trial is one long episode."""

    name = "half-cheetah-vel/amago2024"
    summary = "half-cheetah at any velocity in [0, 3] m/s, 1000 steps of 0.05 s (Grigsby et al. 2024)"
    horizon = 1000
    fastest, accepted = 3.0, 5.0


class HalfCheetahDirMaml2017(Direction, HalfCheetahOfRllab):
    """Finn et al. 2017: HalfCheetahEnvDirec of cbfinn/maml_rl; its tosses are balanced in each meta-batch."""

    name = "half-cheetah-dir/maml2017"
    summary = "half-cheetah forwards or backwards, 200 steps of 0.01 s, Gymnasium's XML (Finn et al. 2017)"
    published = (
        Published("MAML", (-50.69, 293.19, 313.48, 315.65), "cbfinn/maml_rl, icml/*.pkl"),
        Published("pretrained", (-43.0, -24.8, -12.9, 19.6), "cbfinn/maml_rl, icml/*.pkl"),
        Published("random init", (-35.7, 21.8, 62.3, 86.2), "cbfinn/maml_rl, icml/*.pkl"),
        Published("oracle policy", (442.69,), "cbfinn/maml_rl, icml/*.pkl"),
    )


class HalfCheetahDirPearl2019(Direction, HalfCheetahWithTorso):
    """Rakelly et al. 2019: cheetah-dir of katerakelly/oyster, whose two training tasks are the test tasks."""

    name = "half-cheetah-dir/pearl2019"
    summary = "half-cheetah forwards or backwards, 200 steps of 0.05 s (Rakelly et al. 2019)"
    pooled = True
