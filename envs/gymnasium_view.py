"""Any family as a Gymnasium environment, one task and one episode at a time, for other people's learners."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from metarl import Family, Split, TaskError, Tasks, generator

from .tasks import check_request, named_tasks

Named = Mapping[str, float] | Sequence[float] | NDArray[Any]  # {"goal_x": 0.3, "goal_y": 0} or (0.3, 0)


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
                max_episode_steps=getattr(family, "horizon", None),
                kwargs={"family": name},
            )


class GymnasiumView(gym.Env[NDArray[Any], NDArray[Any]]):
    """A family's world with one task in it, which `info["task"]` names and the observation does not tell.

    Each reset takes its task from `reset(options={"task": ...})`, else from `task`, else draws one from
    `split`; a task is given by name, {"goal_x": 0.3, "goal_y": 0.0}, or as numbers in the task space's
    order. A step's `info["target"]` is what only training may read, 0 where the family has no such thing.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  Gymnasium's own annotation

    def __init__(
        self,
        family: str | Family,
        split: Split = "train",
        task: Named | None = None,
        render_mode: str | None = None,
    ) -> None:
        from . import make  # the registry imports this file

        check_request(None, split)
        self.family = make(family) if isinstance(family, str) else family
        self.observation_space, self.action_space = self.family.observation_space, self.family.action_space
        self.split: Split = split
        self.render_mode = render_mode
        self._names = [p.name for p in self.family.task_space]
        self._fixed = None if task is None else self._tasks(task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Start an episode; the seed decides the task, where none is given, and the start."""
        super().reset(seed=seed)
        rng = generator(int(self.np_random.integers(2**63)), self.family.device)
        asked = (options or {}).get("task")
        tasks = self._fixed if asked is None else self._tasks(asked)
        self._now = tasks or self.family.sample_tasks(1, self.split, rng)
        return self._observation(self.family.reset(self._now, 1, rng)), {"task": self.task}

    def step(self, action: NDArray[Any]) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Advance by one action; the time limit is the wrapper's that `gymnasium.make` puts around this."""
        batched = np.reshape(action, (1, 1, *self.family.action_space.shape))
        outcome = self.family.step(
            torch.tensor(batched, dtype=torch.get_default_dtype(), device=self.family.device)
        )
        info = {"task": self.task, "target": outcome.target[0, 0].tolist()}
        reward, terminated = outcome.reward.item(), bool(outcome.terminated.item())
        return self._observation(outcome.obs), reward, terminated, False, info

    @property
    def task(self) -> dict[str, float]:
        """The numbers of the task being played, by name."""
        return dict(zip(self._names, self._now.params[0].tolist(), strict=True))

    def _tasks(self, task: Named) -> Tasks:
        if not isinstance(task, Mapping):
            if np.shape(task) != (len(self._names),):
                raise TaskError(
                    f"task is {task}; wanted: {len(self._names)} numbers, {', '.join(self._names)}"
                )
            task = dict(zip(self._names, task, strict=True))
        return named_tasks(self.family, [task])

    def _observation(self, obs: torch.Tensor) -> NDArray[Any]:
        """A copy of the only observation in a batch: the family may go on writing into its own."""
        return obs[0, 0].cpu().numpy().astype(self.observation_space.dtype)
