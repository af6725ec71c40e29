"""A user's own robot as a family: an MJCF file, what varies, what is observed, and what is rewarded."""

from collections.abc import Callable
from dataclasses import replace

import mujoco
import numpy as np
import torch
from torch import Generator, Tensor

from metarl import Bounds, ConfigError, Split, TaskParameter, Tasks

from .locomotion import Locomotion
from .robots import (
    HINGES,
    Moment,
    Parameter,
    RobotConfig,
    Varied,
    action_ranges,
    compiled,
    digest,
    driven,
    index_of,
    pools,
    root_of,
    start_pose,
    travels,
)
from .tasks import from_splits

IDLE_EPISODES = 2  # in each task, for the floor
Feature = Callable[["Robot"], Tensor]  # the robot itself is given, since a copy of it plays the floor
OBSERVED = ("positions", "velocities", "height", "up", "site:NAME", "body:NAME", "sensor:NAME")


class Robot(Locomotion):
    """r = Σ_i weight_i term_i, until the robot has fallen or `horizon` steps are over.

    Actions in [-1, 1] are mapped onto each actuator's ctrlrange. Everything derived, as the place of a
    site, is as of after a step. Raises ConfigError, that names it, for a bad MJCF or whatever is not in it.
    """

    fresh = True
    control_cost = 0.0  # it is one of the terms

    def __init__(self, config: RobotConfig, device: torch.device) -> None:
        self.config, self.name = config, config.name
        self.substeps, self.horizon = config.substeps, config.horizon
        self._parameters = config.parameters()
        runs = any(term.term in ("forward_velocity", "target_velocity") for term in config.reward)
        self.view = "velocity" if runs else "pose"  # a report of an arm draws no velocities
        names = ", ".join(p.name for p in self._parameters)
        self.summary = config.summary or f"{config.model.rpartition('/')[2]}: tasks differ in {names}"
        self.task_space: tuple[TaskParameter, ...] = tuple(p.described() for p in self._parameters)
        self._place = {p.name: place for place, p in enumerate(self._parameters)}
        self._targets = [term.parameters() for term in config.reward]
        self._floors: dict[bytes, Tensor] = {}  # of the tasks that were asked for so far
        super().__init__(device)
        self._stand()

    def _compile(self) -> mujoco.MjModel:
        """The model, and the places in it of all that the YAML names."""
        config, model = self.config, compiled(self.config)
        found = digest(model)
        if config.digest not in (None, found):
            raise ConfigError(f"model is {config.model!r}, which has changed since the run began")
        self.config = replace(config, digest=found)
        self._varied, self._root = Varied(model, config.vary), root_of(model, config.root)
        self._sites = {t.needs: index_of(model, "site", t.needs, "reward") for t in config.reward if t.needs}
        sensing = any(name.startswith("sensor:") for name in config.observe)
        self.reads = ("xpos", "xmat", *["site_xpos"] * bool(model.nsite), *["sensordata"] * sensing)
        self._features = [self._feature(model, name) for name in config.observe]
        self._pose = start_pose(model, config.start.keyframe)
        low, high = action_ranges(model, config.action_range).T
        self._centre, self._half = torch.from_numpy((low + high) / 2), torch.from_numpy((high - low) / 2)
        unbounded = [t.term for t in config.reward if t.highest == np.inf]
        if unbounded and driven(model, self._root):
            raise ConfigError(
                f"reward.{unbounded[0]}.cap is missing; friction does not limit this robot's speed"
            )
        return model

    def _stand(self) -> None:
        """Learn what it is to stand at the start; ConfigError where that already ends an episode."""
        physics = self._physics
        physics.reset(torch.from_numpy(self._pose[None]), torch.zeros(1, self.model.nv))
        self._up = torch.ones(3).to(physics.qpos)
        self._up = self._rotation()[0, 2].clone()
        self.velocity = torch.zeros(1, 1, 2).to(physics.qpos)
        now = self._moment(torch.zeros(1, self.model.nu).to(physics.qpos))
        self._standing_still = now._replace(sites={name: x.clone() for name, x in now.sites.items()})
        if self._fallen().any():
            height = self._physics.read("xpos")[0, self._root, 2]
            allowed = [*(self.config.terminate.height or ())]
            raise ConfigError(f"terminate.height is {allowed}, but the robot starts at {height:.3g} m")

    # --- the robot

    def _start(self, n: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """The keyframe, with noise on hinges and slides, and on velocities."""
        model, half = self.model, self.config.start.noise
        joints = [j for j in range(model.njnt) if model.jnt_type[j] in HINGES]
        noise = half * (2 * torch.rand(n, len(joints) + model.nv, generator=rng, device=self.device) - 1)
        qpos = torch.from_numpy(self._pose - model.qpos0).to(self.device).repeat(n, 1)
        qpos[:, model.jnt_qposadr[joints]] += noise[:, : len(joints)]
        return qpos, noise[:, len(joints) :]

    def _control(self, action: Tensor) -> Tensor:
        self._action = action
        return self._centre.to(action) + self._half.to(action) * action

    def _position(self) -> Tensor:
        return self._physics.read("xpos")[:, self._root, :2]

    def _rotation(self) -> Tensor:
        """The root's rotation matrix, [n, 3, 3]."""
        return self._physics.read("xmat")[:, self._root].reshape(-1, 3, 3)

    def _upright(self) -> Tensor:
        """The cosine of the angle between the world's up and the direction in the root that was up, [n]."""
        return (self._rotation()[:, 2] * self._up).sum(-1).clamp(-1, 1)

    def _fallen(self) -> Tensor:
        end, fallen = self.config.terminate, torch.zeros_like(self._began, dtype=torch.bool)
        if end.height:
            height = self._physics.read("xpos")[:, self._root, 2]
            fallen = fallen | (height < end.height[0]) | (height > end.height[1])
        return fallen if end.upright is None else fallen | (self._upright() < end.upright)

    # --- what it feels

    def _feature(self, model: mujoco.MjModel, text: str) -> Feature:
        """What computes one entry of `observe`, [n, features]."""
        kind, _, name = text.partition(":")
        if kind in ("site", "body", "sensor") and name:
            place = index_of(model, kind, name, "observe")
            if kind == "site":
                return lambda robot: robot._physics.read("site_xpos")[:, place]
            if kind == "body":
                return lambda robot: robot._physics.read("xpos")[:, place]
            first, size = model.sensor_adr[place], model.sensor_dim[place]
            return lambda robot: robot._sensed()[:, first : first + size]
        kept = np.setdiff1d(np.arange(model.nq), travels(model, self._root))
        simple: dict[str, Feature] = {
            "positions": lambda robot: robot._physics.qpos[:, kept],
            "velocities": lambda robot: robot._physics.qvel,
            "height": lambda robot: robot._physics.read("xpos")[:, robot._root, 2:],
            "up": lambda robot: robot._rotation()[:, 2],  # the world's up in the root's frame
        }
        if text not in simple:
            raise ConfigError(f"observe has {text!r}; allowed: {', '.join(OBSERVED)}")
        return simple[text]

    def _sensed(self) -> Tensor:
        """All sensors, 0 before the first step: many tell forces, and so how heavy the robot is."""
        sensed = self._physics.read("sensordata")
        return sensed if self._new is None else sensed.masked_fill(self._new, 0.0)

    def _observe(self) -> tuple[Tensor, ...]:
        """What `observe` lists, one after the other."""
        return tuple(feature(self) for feature in self._features)

    # --- the tasks

    def _pools(self) -> dict[str, np.ndarray]:
        return pools(self._parameters, self.config.test_tasks, self.config.seed)

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """From the split's pool; in training uniform over the ranges, or over their logarithms."""
        drawn = from_splits(self.pools, self.task_space, n, split, rng)
        if split in self.pools:
            return drawn
        columns = zip(self._parameters, drawn.params.unbind(-1), strict=True)
        return drawn._replace(params=torch.stack([_warped(p, x) for p, x in columns], -1))

    def _fields(self, params: Tensor) -> dict[str, Tensor]:
        return self._varied.fields(params) if self.config.vary else {}

    def _moment(self, action: Tensor) -> Moment:
        sites = self._physics.read("site_xpos") if self._sites else torch.empty(0)
        return Moment(
            self.velocity[..., 0],
            self._by_task(self._upright()),
            self._by_task(action),
            {name: self._by_task(sites[:, place]) for name, place in self._sites.items()},
        )

    def _reward(self, now: Moment, params: Tensor) -> list[Tensor]:
        """What each term is worth, weighted, [N, E], in tasks [N, 1, P]."""
        worth = []
        for term, targets in zip(self.config.reward, self._targets, strict=True):
            columns = [self._target(p, params) for p in targets]
            target = torch.stack(columns, -1) if columns else params[..., :0]
            worth.append(term.weight * term.value(now, target))
        return worth

    def _target(self, p: Parameter | float, params: Tensor) -> Tensor:
        """One number that a term aims at, [N, 1]: the same in all tasks, or each task's own."""
        return (
            torch.full_like(params[..., 0], p) if isinstance(p, float) else params[..., self._place[p.name]]
        )

    def _progress(self) -> Tensor:
        return torch.stack(self._reward(self._moment(self._action), self.params)).sum(0)

    def _standing(self, params: Tensor) -> Tensor:
        """What the start pose earns at rest, but nothing for terms that pay: breaking out must not."""
        worth = self._reward(self._standing_still, params[:, None].to(self._up))
        return torch.stack([w.clamp(max=0)[:, 0].expand(len(params)) for w in worth]).sum(0)

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: what the action 0 earns, played. Oracle: every term at its highest, all the time.

        A velocity without a cap is at its highest when friction with the floor is all used, v = μ g t.
        """
        key, reward = tasks.params.cpu().numpy().tobytes(), self.config.reward
        if key not in self._floors:
            self._floors[key] = self._limp(tasks, IDLE_EPISODES)
        floor = self._floors[key]
        steady = self.horizon * sum(t.weight * t.highest for t in reward if t.highest < np.inf)
        running = sum(t.weight for t in reward if t.highest == np.inf)
        oracle = torch.full_like(floor, steady)
        return Bounds(floor, oracle + running * self._farthest(self._grips(tasks.params)).to(oracle))

    def _grips(self, params: Tensor) -> Tensor:
        """The greatest acceleration that friction allows in each task, μ g, [N]."""
        fields = self._fields(params.double().cpu())
        model, n = self.model, len(params)
        friction = fields.get("geom_friction", torch.from_numpy(model.geom_friction).expand(n, -1, -1))
        pairs = torch.from_numpy(model.pair_friction[:, :2]).flatten().expand(n, -1)
        gravity = fields.get("opt.gravity", torch.from_numpy(model.opt.gravity).expand(n, -1))
        return torch.cat([friction[..., 0], pairs], -1).amax(-1) * gravity.norm(dim=-1)


def _warped(parameter: Parameter, x: Tensor) -> Tensor:
    """A uniform number of the trained range, [N], or the same share of the way between the logarithms."""
    if not parameter.log:
        return x
    low, high = parameter.range
    return (low * (high / low) ** ((x - low) / (high - low))).clamp(*x.new_tensor([low, high]))
