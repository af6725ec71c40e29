"""Any family as a Gymnasium environment, one task and one episode at a time, for other people's learners."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from metarl import ConfigError, Family, Split, TaskError, Tasks, generator, unknown

from .rendering import Drawn, Picture, check_render_mode, poses, render_metadata
from .robots import RobotConfig
from .tasks import check_request, named_tasks

Array = NDArray[Any]
Named = Mapping[str, float] | Sequence[float] | Array  # {"goal_x": 0.3, "goal_y": 0} or (0.3, 0)
Viewed = str | Path | Mapping[str, Any] | RobotConfig | Family  # what `make` takes, or what it gives


def gymnasium_id(name: str) -> str:
    """The id of a family in Gymnasium's registry: "half-cheetah-vel/x" is metarl/HalfCheetahVel-x-v0."""
    world, _, convention = name.partition("/")
    words = "".join(word[:1].upper() + word[1:] for word in world.split("-"))
    return "metarl/" + "-".join(part for part in (words, convention, "v0") if part)


def register(families: Mapping[str, Any]) -> None:
    """Make families known to Gymnasium; nothing is built, the horizon belongs to the class.

    Importing `metarl.envs` does it; `gymnasium.make("metarl.envs:metarl/...")` imports it by itself.
    """
    for name, family in families.items():
        if gymnasium_id(name) not in gym.registry:
            gym.register(
                gymnasium_id(name),
                entry_point="metarl.envs:GymnasiumView",
                vector_entry_point="metarl.envs:VectorView",
                max_episode_steps=getattr(family, "horizon", None),
                kwargs={"family": name},
            )


def by_name(family: Family, task: Named) -> Mapping[str, float]:
    """A task by name, also where it came as numbers in the task space's order."""
    names = [p.name for p in family.task_space]
    if isinstance(task, Mapping):
        return task
    if shape_of(task) != (len(names),):
        text = " ".join(str(task).split())
        raise TaskError(f"task is {text}; wanted: {len(names)} numbers, {', '.join(names)}")
    return dict(zip(names, task, strict=True))


def shape_of(value: Any) -> tuple[int, ...] | str:
    """numpy's shape, also where rows differ in length, and numpy has none."""
    try:
        return tuple(np.shape(value))
    except ValueError:
        return "ragged"


def viewed(family: Viewed) -> Any:
    """A family as it is, or else the one that `make` makes of its name or of a user's robot."""
    from . import make  # the registry imports this file

    if hasattr(family, "sample_tasks") and not isinstance(family, type):
        return family
    return make(family)  # type: ignore[arg-type]


def check_options(options: Mapping[str, Any] | None, *allowed: str) -> Mapping[str, Any]:
    """The options of a reset; ConfigError for one that would have no effect."""
    for name in options or {}:
        if name not in allowed:
            raise unknown("reset option", name, allowed)
    return options or {}


def actions_for(family: Family, actions: Array, *batch: int) -> torch.Tensor:
    """Actions [*batch, A] as the family takes them, [N, 1, A]; ConfigError for another shape or kind.

    Where the action space is Discrete, the A is missing from both.
    """
    space, found = family.action_space, shape_of(actions)
    each, kind = space.shape, torch.get_default_dtype()
    if found != (*batch, *each):
        raise ConfigError(f"the action's shape is {found}; allowed: {(*batch, *each)}")
    if isinstance(space, gym.spaces.Discrete):
        kind, whole = torch.int64, np.asarray(actions)
        if whole.dtype.kind not in "iu" or whole.min() < 0 or whole.max() >= space.n:
            raise ConfigError(f"the action is {actions}; allowed: whole numbers from 0 to {space.n - 1}")
    return torch.tensor(np.reshape(actions, (-1, 1, *each)), dtype=kind, device=family.device)


def no_episode() -> gym.error.ResetNeeded:
    """The error for what only an episode can tell."""
    return gym.error.ResetNeeded("there is no episode yet: call reset() first")


class GymnasiumView(Drawn, gym.Env[Array, Array]):
    """A family's world with one task in it, which `info["task"]` names and the observation does not tell.

    Each reset takes its task from `reset(options={"task": ...})`, else from `task`, else draws one from
    `split`; a task is given by name, {"goal_x": 0.3, "goal_y": 0.0}, or as numbers in the task space's
    order. A step's `info["target"]` is what only training may read, 0 where the family has no such thing.
    With render_mode "rgb_array", `render` draws robots and the plane, [height, width, 3] uint8.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  Gymnasium's own annotation

    def __init__(
        self,
        family: Viewed,
        split: Split = "train",
        task: Named | None = None,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 360,
    ) -> None:
        check_request(None, split)
        self.family = viewed(family)
        check_render_mode(self.family, render_mode, width, height)
        self.metadata, self._size = render_metadata(self.family), (width, height)
        self.observation_space, self.action_space = self.family.observation_space, self.family.action_space
        self.split: Split = split
        self.render_mode = render_mode
        self._names = [p.name for p in self.family.task_space]
        self._fixed = None if task is None else self._tasks(task)
        self._played: Tasks | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode; the seed decides the task, where none is given, and the start."""
        asked = check_options(options, "task").get("task")
        super().reset(seed=seed)
        rng = generator(int(self.np_random.integers(2**63)), self.family.device)
        tasks = self._fixed if asked is None else self._tasks(asked)
        self._played = tasks or self.family.sample_tasks(1, self.split, rng)
        return self._observation(self.family.reset(self._now, 1, rng)), {"task": self.task}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Advance by one action; the time limit is the wrapper's that `gymnasium.make` puts around this."""
        info: dict[str, Any] = {"task": self.task}  # there is none before reset
        outcome = self.family.step(actions_for(self.family, action))
        info["target"] = outcome.target[0, 0].tolist()
        reward, terminated = outcome.reward.item(), bool(outcome.terminated.item())
        return self._observation(outcome.obs), reward, terminated, False, info

    def render(self) -> Picture | None:
        """The present moment as a picture; None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn('render needs a mode: gymnasium.make(..., render_mode="rgb_array")')
            return None
        params = self._now.params[0]
        return self._painter(poses(self.family, self._seen)[:1, 0], params)

    def close(self) -> None:
        """Give back what drawing needed."""
        self._stop_drawing()

    @property
    def task(self) -> dict[str, float]:
        """The numbers of the task being played, by name."""
        return dict(zip(self._names, self._now.params[0].tolist(), strict=True))

    @property
    def _now(self) -> Tasks:
        if self._played is None:
            raise no_episode()
        return self._played

    def _tasks(self, task: Named) -> Tasks:
        return named_tasks(self.family, [by_name(self.family, task)])

    def _observation(self, obs: torch.Tensor) -> Array:
        """A copy of the only observation in a batch: the family may go on writing into its own."""
        self._seen = obs
        return obs[0, 0].cpu().numpy().astype(self.observation_space.dtype)
