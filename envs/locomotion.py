"""What all simulated robots share: a batch of MuJoCo worlds, played by tasks that reward how they move."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy

import gymnasium as gym
import mujoco
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Bounds, Outcome, Published, Split, TaskParameter, Tasks, generator

from .physics import Physics, gymnasium_model, simulate
from .tasks import from_splits


class Locomotion(ABC):
    """r = progress + bonus - cost ‖u‖², until the robot falls or `horizon` steps are over.

    A subclass says how the robot starts, what it observes and when it has fallen (the robot's side), and
    what progress is (the task's). Physics runs in its own precision; only what leaves it is rounded. A
    simulation that breaks ends its own episode, and loses for the rest what standing still would.
    """

    name: str
    summary: str
    file: str  # of Gymnasium's model
    substeps: int  # simulation steps in a control step
    horizon = 200
    reads: tuple[str, ...] = ()  # what it takes from the simulation beside qpos and qvel
    fresh = False  # these are as of after a step, which is rllab's way; else one substep old, as Gym's are
    capacity: Mapping[str, int] | None = None  # room for contacts on a GPU, where that is too little
    action_scale = 1.0  # actions lie in [-scale, scale], which is the actuators' whole range
    bonus = 0.0  # for each step
    control_cost: float
    shared_splits = False
    published: tuple[Published, ...] = ()
    view = "velocity"  # how a report draws an episode: velocity over time
    task_space: tuple[TaskParameter, ...]
    _physics: Physics
    _new: Tensor | None = None  # which episodes have yet to make a step, [n, 1], bool; none: all made one

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.model = self._compile()
        self.dt = self.substeps * self.model.opt.timestep
        self.reach = self.model.actuator_ctrlrange[:, 1]  # symmetric in all of Gymnasium's robots
        bound = np.full(self.model.nu, self.action_scale, np.float32)
        self.action_space = gym.spaces.Box(-bound, bound)
        pools = {split: torch.as_tensor(pool, device=device) for split, pool in self._pools().items()}
        self.pools = {split: pool.to(torch.get_default_dtype()) for split, pool in pools.items()}
        self._prepare(1, 1)
        self._velocity(self._position())
        features = sum(part.shape[1] for part in self._observe())
        self.observation_space = gym.spaces.Box(-math.inf, math.inf, (features,))

    # --- the robot's side

    def _compile(self) -> mujoco.MjModel:
        """The model; one of Gymnasium's, unless a subclass brings its own."""
        return gymnasium_model(self.file)

    def _control(self, action: Tensor) -> Tensor:
        """The actuators' controls, [n, nu], for actions in [-1, 1]."""
        return action if self._unit else action * self._torque

    @abstractmethod
    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """Positions [n, nq] and velocities [n, nv] to begin with, as differences from the model's own."""

    @abstractmethod
    def _observe(self) -> tuple[Tensor, ...]:
        """What the robot feels, in parts of [n, k] that stand side by side; called after `_velocity`."""

    @abstractmethod
    def _position(self) -> Tensor:
        """Where it is along the axes in which it travels, [n, D], D = 1 or 2, in metres."""

    def _velocity(self, before: Tensor) -> Tensor:
        """How fast it moved in the last step, [n, D], in m/s; before: its position before it."""
        return (self._position() - before) / self.dt

    def _fallen(self) -> Tensor | None:
        """Which episodes its pose ends, [n], bool; none where no pose does."""
        return None

    # --- the task's side

    @abstractmethod
    def _pools(self) -> dict[str, np.ndarray]:
        """The fixed pools, by split, [M, P]; a training split that is missing is the whole trained box."""

    def _fields(self, params: Tensor) -> dict[str, Tensor]:
        """The model's fields that differ between tasks, each [n, ...], from their numbers [n, P]."""
        return {}

    def speed(self) -> Tensor:
        """How fast the last step went the way that the task wants, [N, E], in m/s."""
        return self.velocity[..., 0]

    def _progress(self) -> Tensor:
        """What the last step was worth, [N, E]."""
        return self.speed()

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
            self._physics = simulate(self.model, n, self.device, self.fresh, self.capacity)
            for name in self.reads:
                self._physics.read(name)  # from now on each reset and step refreshes it
            self._torque = torch.from_numpy(self.reach).to(self._physics.qpos)
            self._unit = bool((self.reach == 1).all())
        self._clock = 0
        self._began = torch.zeros(n, dtype=torch.long, device=self._physics.qpos.device)

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
        self._began[rows] = self._clock
        self._new = self._time[:, None] == 0
        self.velocity = self._by_task(self._velocity(self._position()))
        return self._observation()

    def step(self, action: Tensor) -> Outcome:
        """Hold the torques for one step, then see how the robot has moved."""
        before, physics = self._position().clone(), self._physics
        control = action.detach().flatten(0, 1).to(physics.qpos)
        if self.action_scale != 1:
            control = control / self.action_scale
        control = self._control(control.clamp(-1, 1))
        diverged = physics.step(control, self.substeps)
        self._clock, self._new = self._clock + 1, None
        self.velocity = self._by_task(self._velocity(before))
        reward = self._progress()
        if self.bonus:
            reward = reward + self.bonus
        if self.control_cost:
            reward = reward.sub(self._by_task(control.square().sum(-1)), alpha=self.control_cost)
        if diverged.any():
            # What breaks the simulation stands still for the rest, lest a policy that does look perfect;
            # where standing pays, it earns nothing, lest it look better than one that falls.
            still = self._standing(self.params[:, 0])[:, None].clamp(max=0)
            rest = self._by_task(self.horizon + 1 - self._time)
            reward = torch.where(self._by_task(diverged), rest * still, reward)
        reward = reward.to(torch.get_default_dtype())
        fallen = self._fallen()
        ended = self._by_task(diverged if fallen is None else diverged | fallen)
        return Outcome(self._observation(), reward, ended, torch.zeros_like(reward))

    @property
    def _time(self) -> Tensor:
        """Steps since each episode began, [n]."""
        return self._clock - self._began

    def _observation(self) -> Tensor:
        """The parts of what the robots feel in one tensor, [N, E, O], rounded."""
        return self._by_task(torch.cat(self._observe(), 1).to(torch.get_default_dtype()))

    @abstractmethod
    def _standing(self, params: Tensor) -> Tensor:
        """What a step of standing still earns, [N], from the tasks' numbers [N, P]."""

    @property
    def qpos(self) -> Tensor:
        """The pose of every robot, [N, E, nq], for who draws it."""
        return self._by_task(self._physics.qpos).clone()

    def _by_task(self, x: Tensor) -> Tensor:
        return x.view(*self._shape, *x.shape[1:])

    # --- floors and ceilings

    def _limp(self, tasks: Tasks, episodes: int = 8) -> Tensor:
        """The mean return of a few episodes of the action 0 in each task, [N]."""
        world = copy(self)  # these are not steps of the episodes that are being played
        del world._physics
        obs = world.reset(tasks, episodes, generator(0, self.device))
        action = obs.new_zeros(*obs.shape[:2], *self.action_space.shape)
        total = obs.new_zeros(obs.shape[:2])
        going = torch.ones_like(total)
        for _ in range(self.horizon):
            outcome = world.step(action)
            total += going * outcome.reward
            going *= ~outcome.terminated
            if not going.any():
                break
        return total.mean(1)

    def _grip(self) -> float:
        """The greatest acceleration that friction with the floor allows, μ g, in m/s²."""
        touching = (self.model.geom_contype | self.model.geom_conaffinity) > 0
        return float(self.model.geom_friction[touching, 0].max() * np.linalg.norm(self.model.opt.gravity))

    def _farthest(self, grip: Tensor | float) -> Tensor:
        """The sum of all velocities when accelerating as hard as friction allows: Σ_t μ g t, m/s."""
        seconds = self.dt * torch.arange(1, self.horizon + 1, dtype=torch.float64)
        return torch.as_tensor(grip) * seconds.sum()
