"""What all simulated robots share: a batch of MuJoCo worlds, played by tasks that reward how they move."""

import math
from abc import ABC, abstractmethod

import gymnasium as gym
import mujoco
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Bounds, Outcome, Published, Split, TaskParameter, Tasks

from .physics import Physics, gymnasium_model, simulate
from .tasks import from_splits


class Locomotion(ABC):
    """r = progress + bonus - cost ‖u‖², until the robot falls or `horizon` steps are over.

    A subclass says how the robot starts, what it observes and when it has fallen (the robot's side), and
    what progress is (the task's). Physics runs in its own precision; only what leaves it is rounded. A
    simulation that breaks ends its own episode, and earns for the rest what standing still would.
    """

    name: str
    summary: str
    file: str  # of Gymnasium's model
    timestep: float | None = None  # of the simulation, in seconds; none: the model's
    substeps: int  # simulation steps in a control step
    horizon = 200
    reads: tuple[str, ...] = ()  # what it takes from the simulation beside qpos and qvel
    fresh = False  # these are as of after a step, which is rllab's way; else one substep old, as Gym's are
    action_scale = 1.0  # actions lie in [-scale, scale], which is the actuators' whole range
    bonus = 0.0  # for each step
    control_cost: float
    shared_splits = False
    published: tuple[Published, ...] = ()
    view = "velocity"  # how a report draws an episode: velocity over time
    task_space: tuple[TaskParameter, ...]
    _physics: Physics

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.model = gymnasium_model(self.file, self.timestep, self._edit)
        self.dt = self.substeps * self.model.opt.timestep
        self.reach = self.model.actuator_ctrlrange[:, 1]  # symmetric in all of Gymnasium's robots
        bound = np.full(self.model.nu, self.action_scale, np.float32)
        self.action_space = gym.spaces.Box(-bound, bound)
        pools = {split: torch.as_tensor(pool, device=device) for split, pool in self._pools().items()}
        self.pools = {split: pool.to(torch.get_default_dtype()) for split, pool in pools.items()}
        self._prepare(1, 1)
        self._velocity(self._position())
        self.observation_space = gym.spaces.Box(-math.inf, math.inf, self._observe().shape[1:])

    # --- the robot's side

    def _edit(self, spec: mujoco.MjSpec) -> None:
        """Change the model before it is compiled: add a sensor."""

    @abstractmethod
    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """Positions [n, nq] and velocities [n, nv] to begin with, as differences from the model's own."""

    @abstractmethod
    def _observe(self) -> Tensor:
        """What the robot feels, [n, O]; called after `_velocity`."""

    @abstractmethod
    def _position(self) -> Tensor:
        """Where it is along the axes in which it travels, [n, D], D = 1 or 2, in metres."""

    def _velocity(self, before: Tensor) -> Tensor:
        """How fast it moved in the last step, [n, D], in m/s; before: its position before it."""
        return (self._position() - before) / self.dt

    def _fallen(self) -> Tensor:
        """Which episodes its pose ends, [n], bool."""
        return torch.zeros(self._physics.n, dtype=torch.bool, device=self._physics.qpos.device)

    # --- the task's side

    @abstractmethod
    def _pools(self) -> dict[str, np.ndarray]:
        """The fixed pools, by split, [M, P]; a training split that is missing is the whole trained box."""

    def _fields(self, params: Tensor) -> dict[str, Tensor]:
        """The model's fields that differ between tasks, each [n, ...], from their numbers [n, P]."""
        return {}

    @abstractmethod
    def _progress(self) -> Tensor:
        """What the last step was worth, [N, E], from `velocity` [N, E, D] and `params` [N, 1, P]."""

    @abstractmethod
    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: what standing still earns. Oracle: no return passes it."""

    # --- a family's

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """From the split's pool or, where it has none, uniform over the trained range."""
        return from_splits(self.pools, self.task_space, n, split, rng)

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """All robots near their initial pose, each its own."""
        self._prepare(len(tasks.ids), episodes)
        return self.restart(torch.ones(self._shape, dtype=torch.bool), tasks, rng)

    def _prepare(self, tasks: int, episodes: int) -> None:
        self._shape, n = (tasks, episodes), tasks * episodes
        if not hasattr(self, "_physics") or n != self._physics.n:
            self._physics = simulate(self.model, n, self.device, self.fresh)
            for name in self.reads:
                self._physics.read(name)  # from now on each reset and step refreshes it
            self._torque = torch.from_numpy(self.reach).to(self._physics.qpos)
        self._time = torch.zeros(n, dtype=torch.long, device=self._physics.qpos.device)

    def restart(self, ended: Tensor, tasks: Tasks, rng: Generator) -> Tensor:
        """Start the episodes that a mask [N, E] marks anew; all observations, [N, E, O].

        The tasks of all other episodes have to be those that they are in.
        """
        physics, rows = self._physics, ended.flatten()
        self.params = tasks.params.to(physics.qpos)[:, None]  # [N, 1, P]
        if fields := self._fields(self.params.expand(*self._shape, -1).flatten(0, 1)):
            physics.vary(fields)
        qpos, qvel = (x.to(physics.qpos)[rows] for x in self._start(physics.n, rng))
        initial = torch.from_numpy(self.model.qpos0).to(physics.qpos)
        physics.reset(initial + qpos, qvel, rows)
        self._time[rows] = 0
        self.velocity = self._by_task(self._velocity(self._position()))
        return self._leave(self._by_task(self._observe()))

    def step(self, action: Tensor) -> Outcome:
        """Hold the torques for one step, then see how the robot has moved."""
        before, physics = self._position().clone(), self._physics
        control = action.detach().flatten(0, 1).to(physics.qpos) / self.action_scale
        control = control.clamp(-1, 1) * self._torque
        diverged = self._by_task(physics.step(control, self.substeps))
        self._time += 1
        self.velocity = self._by_task(self._velocity(before))
        cost = self.control_cost * self._by_task(control.square().sum(-1))
        reward = self._progress() + self.bonus - cost
        # What breaks the simulation stands still for the rest, lest a policy that does look perfect.
        rest = (self.horizon + 1 - self._by_task(self._time)) * self._idle()
        reward = self._leave(torch.where(diverged, rest, reward))
        ended = (diverged | self._by_task(self._fallen())).to(self.device)
        return Outcome(self._leave(self._by_task(self._observe())), reward, ended, torch.zeros_like(reward))

    def _idle(self) -> Tensor:
        """What a step of standing still earns in each task, [N, 1]."""
        return self._standing(self.params[:, 0])[:, None]

    @abstractmethod
    def _standing(self, params: Tensor) -> Tensor:
        """What a step of standing still earns, [N], from the tasks' numbers [N, P]."""

    @property
    def qpos(self) -> Tensor:
        """The pose of every robot, [N, E, nq], for who draws it."""
        return self._by_task(self._physics.qpos).clone()

    def _by_task(self, x: Tensor) -> Tensor:
        return x.unflatten(0, self._shape)

    def _leave(self, x: Tensor) -> Tensor:
        return x.to(self.device, torch.get_default_dtype())

    # --- ceilings

    def _grip(self) -> float:
        """The greatest acceleration that friction with the floor allows, μ g, in m/s²."""
        touching = (self.model.geom_contype | self.model.geom_conaffinity) > 0
        return float(self.model.geom_friction[touching, 0].max() * np.linalg.norm(self.model.opt.gravity))

    def _farthest(self, grip: Tensor | float) -> Tensor:
        """The sum of all velocities when accelerating as hard as friction allows: Σ_t μ g t, m/s."""
        seconds = self.dt * torch.arange(1, self.horizon + 1, dtype=torch.float64)
        return torch.as_tensor(grip) * seconds.sum()


class GoalVelocity(Locomotion):
    """Run at a velocity that has to be found out: progress = -|v - v_goal|."""

    fastest: float  # goal velocity in training, from 0
    accepted: float  # the highest goal velocity

    def __init__(self, device: torch.device) -> None:
        self.task_space = (TaskParameter("velocity", "m/s", 0.0, self.accepted, 0.0, self.fastest),)
        super().__init__(device)

    def _beyond(self, n: int) -> np.ndarray:
        """n goal velocities above all trained ones, evenly spaced up to the fastest that is accepted."""
        return np.linspace(self.fastest, self.accepted, n + 1)[1:, None]

    def _progress(self) -> Tensor:
        return -(self.velocity[..., 0] - self.params[..., 0]).abs()

    def _standing(self, params: Tensor) -> Tensor:
        return self.bonus - params[:, 0]

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: stand still. Oracle: accelerate with all the friction that there is, μ g t, up to the goal.

        Hops and swinging limbs apart, nothing passes that; torques cost nothing in it, so that a trained
        policy that knows its task stays below. Where one was published, it stands in `published`.
        """
        goal = tasks.params[:, 0]
        reached = self._grip() * self.dt * torch.arange(1, self.horizon + 1, device=goal.device)
        missing = (goal[:, None] - reached).clamp(min=0).sum(-1)
        return Bounds(self.horizon * self._standing(tasks.params), self.horizon * self.bonus - missing)


class Direction(Locomotion):
    """Run forwards or backwards: progress = ±v."""

    shared_splits = True  # there are two tasks
    task_space = (TaskParameter("direction", "", -1.0, 1.0, -1.0, 1.0, values=(-1.0, 1.0)),)
    pooled = False  # whether training, too, takes each of the two once

    def _pools(self) -> dict[str, np.ndarray]:
        both = np.array([[-1.0], [1.0]])
        return {"test": both, "ood": both} | ({"train": both} if self.pooled else {})

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """The two tasks or, in training where they are not pooled, a coin toss for each."""
        drawn = from_splits(self.pools, self.task_space, n, split, rng)
        return drawn if split in self.pools else drawn._replace(params=drawn.params.sign())

    def _progress(self) -> Tensor:
        return self.params[..., 0] * self.velocity[..., 0]

    def _standing(self, params: Tensor) -> Tensor:
        return torch.full_like(params[:, 0], self.bonus)

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: stand still. Oracle: speed up all the way, with all the friction that there is."""
        floor = self.horizon * self._standing(tasks.params)
        return Bounds(floor, floor + self._farthest(self._grip()).to(floor))


class Heading(Locomotion):
    """Run in a direction of the plane: progress = weight v · (cos angle, sin angle).

    The tasks go all the way round, so that there is nothing beyond: ood are other angles again.
    """

    task_space = (TaskParameter("angle", "rad", 0.0, 2 * math.pi, 0.0, 2 * math.pi),)
    weight = 1.0
    train_angles: int | None = None  # pooled; none: any angle

    def _pools(self) -> dict[str, np.ndarray]:
        angles = np.random.RandomState(1337).uniform(0.0, 2 * math.pi, ((self.train_angles or 0) + 70, 1))
        train, test, other = np.split(angles, [-70, -40])
        return {"test": test, "ood": other} | ({"train": train} if len(train) else {})

    def _progress(self) -> Tensor:
        angle = self.params[..., 0]
        heading = torch.stack([angle.cos(), angle.sin()], -1)  # [N, 1, 2]
        return self.weight * (self.velocity * heading).sum(-1)

    def _standing(self, params: Tensor) -> Tensor:
        return torch.full_like(params[:, 0], self.bonus)

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: stand still. Oracle: speed up all the way, with all the friction that there is."""
        floor = self.horizon * self._standing(tasks.params)
        return Bounds(floor, floor + self.weight * self._farthest(self._grip()).to(floor))
