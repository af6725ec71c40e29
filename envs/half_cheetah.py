"""Half-cheetahs that are not told how fast to run, after two published conventions.

r = -|v - v_goal| - 0.05 ‖a‖², with torques a in [-1, 1]⁶, 200 steps and no termination.
"""

import math
from abc import ABC, abstractmethod

import gymnasium as gym
import mujoco
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Bounds, Outcome, Published, Split, TaskParameter, Tasks

from .physics import gymnasium_model, simulate
from .tasks import from_splits

HEIGHT = 0.7  # of the torso's frame above the floor, in metres, where the root's height is 0


class CentreOfMass:
    """Where a planar chain's centre of mass is and how it moves: the root, plus an arm u_b for each body b.

    p = p_root + Σ_b u_b exp(iθ_b), with the plane as x - iz, in which a turn by θ about y is exp(iθ), θ_b
    the sum of the hinge angles down to b, and u_b = (m_b c_b + Σ_children m_subtree o_child) / m: what b's
    own mass, at c_b, and the subtrees that hang on it, at o_child, contribute in b's frame.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        bodies = range(1, model.nbody)
        chain = np.eye(model.nbody)  # [j, b] = 1 where body j is b or one of its ancestors
        moment = model.body_mass[:, None] * model.body_ipos
        for b in bodies:  # parents come first
            parent = model.body_parentid[b]
            chain[:, b] += chain[:, parent]
            moment[parent] += model.body_subtreemass[b] * model.body_pos[b]
        arms = moment[1:] / model.body_subtreemass[1]
        self.chain = torch.from_numpy(chain[1:, 1:])  # [B, B]
        self.arms = torch.from_numpy(arms[:, 0] - 1j * arms[:, 2])  # [B]

    def __call__(self, qpos: Tensor, qvel: Tensor) -> tuple[Tensor, Tensor]:
        """Its place and its velocity in the plane, complex, [n] each; qpos and qvel are [n, 2 + B]."""
        theta, omega = qpos[:, 2:] @ self.chain, qvel[:, 2:] @ self.chain
        arms = self.arms * torch.polar(torch.ones_like(theta), theta)
        place = torch.complex(qpos[:, 0], -qpos[:, 1] - HEIGHT)
        velocity = torch.complex(qvel[:, 0], -qvel[:, 1])
        return place + arms.sum(-1), velocity + 1j * (omega * arms).sum(-1)


class HalfCheetahVel(ABC):
    """The goal-velocity families. Physics runs on the CPU, in float64; only what leaves it is rounded."""

    horizon = 200
    substeps: int  # of 0.01 s a step
    fastest: float  # goal velocity in training, from 0
    reach: float  # goal velocity that is accepted
    shared_splits = False
    published: tuple[Published, ...] = ()
    view = "velocity"  # how a report draws an episode: velocity over time, beside the goal

    name: str
    summary: str

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.model = gymnasium_model("half_cheetah.xml")
        self.observation_space = gym.spaces.Box(-math.inf, math.inf, (20,))
        self.action_space = gym.spaces.Box(-1.0, 1.0, (6,))
        velocity = TaskParameter("velocity", "m/s", 0.0, self.reach, 0.0, self.fastest)
        self.task_space: tuple[TaskParameter, ...] = (velocity,)
        pools = {split: torch.tensor(pool[:, None], device=device) for split, pool in self._pools().items()}
        self.pools = {split: pool.to(torch.get_default_dtype()) for split, pool in pools.items()}
        self._physics = simulate(self.model, 1)

    @abstractmethod
    def _pools(self) -> dict[str, np.ndarray]:
        """The fixed pools, by split, [M] or [M, P]."""

    @abstractmethod
    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """Positions and velocities to begin with, [n, 9] each."""

    @abstractmethod
    def _measure(self, before: Tensor) -> tuple[Tensor, Tensor]:
        """The place that the observation tells, [n, 3], and the velocity, [n]; before: the root's last x."""

    def _beyond(self, n: int) -> np.ndarray:
        """n goal velocities above all trained ones, evenly spaced up to the fastest that is accepted."""
        return np.linspace(self.fastest, self.reach, n + 1)[1:]

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """From the split's pool or, where it has none, uniform over the trained range."""
        return from_splits(self.pools, self.task_space, n, split, rng)

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """All cheetahs near their initial pose, each its own."""
        self._shape = len(tasks.ids), episodes
        n = math.prod(self._shape)
        if n != self._physics.n:
            self._physics = simulate(self.model, n)
        state = self._physics.qpos
        self._goal = tasks.params.to(state)  # [N, 1]
        self._time = 0
        qpos, qvel = self._start(n, rng)
        self._physics.reset(qpos.to(state), qvel.to(state))
        return self._observe(self._measure(state[:, 0])[0])

    def step(self, action: Tensor) -> Outcome:
        """Hold the torques for one step, then compare the velocity with the goal."""
        state = self._physics.qpos
        before = state[:, 0].clone()
        torque = action.detach().flatten(0, 1).to(state).clamp(-1, 1)
        diverged = self._physics.step(torque, self.substeps).view(self._shape)
        self._time += 1
        torso, velocity = self._measure(before)
        cost = 0.05 * torque.square().sum(-1)
        reward = -(velocity.view(self._shape) - self._goal).abs() - cost.view(self._shape)
        # What breaks the simulation stands still for the rest, lest a policy that does look perfect.
        reward = torch.where(diverged, (self._time - 1 - self.horizon) * self._goal, reward)
        reward = self._leave(reward)
        return Outcome(self._observe(torso), reward, diverged.to(self.device), torch.zeros_like(reward))

    def _observe(self, torso: Tensor) -> Tensor:
        """Positions but the root's x, velocities and the torso's place, [N, E, 20]."""
        obs = torch.cat([self._physics.qpos[:, 1:], self._physics.qvel, torso], -1)
        return self._leave(obs.unflatten(0, self._shape))

    def _leave(self, x: Tensor) -> Tensor:
        return x.to(self.device, torch.get_default_dtype())

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: stand still, -H v_goal. Oracle: 0, which no return can pass as no reward is positive.

        It is a bound that nothing reaches: a cheetah starts at rest and pays for torque. What a trained
        policy that knows the task earns stands, where it was published, in `published`.
        """
        still = -self.horizon * tasks.params[:, 0]
        return Bounds(still, torch.zeros_like(still))


class HalfCheetahVelMaml2017(HalfCheetahVel):
    """Finn et al. 2017: HalfCheetahEnvRand of cbfinn/maml_rl with its `normalize` wrapper, on rllab.

    A step lasts 0.01 s; velocity and place are the centre of mass's, after the step (rllab calls
    mj_forward). It runs on Gymnasium's XML, not on rllab's: the two differ in a camera alone, but
    rllab's MuJoCo was 1.31, so that the published returns are not those of the very same contacts.
    """

    name = "half-cheetah-vel/maml2017"
    summary = (
        "half-cheetah at a velocity in [0, 2] m/s, 200 steps of 0.01 s, Gymnasium's XML (Finn et al. 2017)"
    )
    substeps = 1
    fastest = 2.0
    reach = 4.0
    published: tuple[Published, ...] = (
        Published("MAML", (-129.53, -78.57, -66.62, -60.78), "cbfinn/maml_rl, icml/*.pkl"),
        Published("pretrained", (-158.0, -135.4, -128.5, -133.6), "cbfinn/maml_rl, icml/*.pkl"),
        Published("random init", (-254.8, -254.3, -246.8, -230.8), "cbfinn/maml_rl, icml/*.pkl"),
        Published("oracle policy", (-54.47,), "cbfinn/maml_rl, icml/*.pkl"),
    )

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._centre = CentreOfMass(self.model)

    def _pools(self) -> dict[str, np.ndarray]:
        return {"test": np.random.RandomState(1).uniform(0.0, 2.0, 40), "ood": self._beyond(40)}

    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(2, n, 9, generator=rng, device=self.device)
        return 0.01 * noise[0], 0.1 * noise[1]

    def _measure(self, before: Tensor) -> tuple[Tensor, Tensor]:
        place, velocity = self._centre(self._physics.qpos, self._physics.qvel)
        return torch.stack([place.real, torch.zeros_like(place.real), -place.imag], -1), velocity.real


class HalfCheetahVelPearl2019(HalfCheetahVel):
    """Rakelly et al. 2019: cheetah-vel of katerakelly/oyster, on OpenAI Gym.

    A step lasts 0.05 s, the velocity is how far the root went in it, and the place is the torso's frame.
    As with mujoco-py, which calls no mj_forward after a step, that place is one substep (0.01 s) old.
    """

    name = "half-cheetah-vel/pearl2019"
    summary = "half-cheetah at a velocity in [0, 3] m/s, 200 steps of 0.05 s (Rakelly et al. 2019)"
    substeps = 5
    fastest = 3.0
    reach = 5.0

    def _pools(self) -> dict[str, np.ndarray]:
        velocities = np.random.RandomState(1337).uniform(0.0, 3.0, 130)
        return {"train": velocities[:100], "test": velocities[100:], "ood": self._beyond(30)}

    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        u = torch.rand(n, 9, generator=rng, device=self.device)
        return 0.2 * u - 0.1, 0.1 * torch.randn(n, 9, generator=rng, device=self.device)

    def _measure(self, before: Tensor) -> tuple[Tensor, Tensor]:
        qpos, qvel, dt = self._physics.qpos, self._physics.qvel, self.model.opt.timestep
        x, z = (qpos[:, :2] - (dt * qvel[:, :2] if self._time else 0.0)).unbind(-1)
        velocity = (qpos[:, 0] - before) / (self.substeps * dt)
        return torch.stack([x, torch.zeros_like(x), z + HEIGHT], -1), velocity
