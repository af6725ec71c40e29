"""Any family as a Gymnasium vector environment: many episodes side by side, a step being one batched call."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from metarl import ConfigError, Split, Tasks, device, generator

from .gymnasium_view import Array, Named, Viewed, actions_for, by_name, check_options, no_episode, viewed
from .rendering import Drawn, Picture, check_render_mode, poses, render_metadata
from .tasks import check_request, named_tasks

Mask = NDArray[np.bool_]
MODES = [mode.value for mode in AutoresetMode]


class VectorView(Drawn, VectorEnv[Array, Array, Array]):
    """`num_envs` episodes of a family, each in a task of its own, which `info["task"]` names.

    It behaves as Gymnasium's SyncVectorEnv over `GymnasiumView` does, in all three autoreset modes. A
    start takes its task from `reset(options={"task": ...})`, else from `task`, each one task for all or
    a sequence with one for each, else draws a new one from `split`. The time limit is the family's horizon,
    or `max_episode_steps`. `gymnasium.make_vec("metarl/...", num_envs=8)` makes it.

    Raises ConfigError where the family cannot restart some of its episodes alone.
    """

    def __init__(
        self,
        family: Viewed,
        num_envs: int = 1,
        split: Split = "train",
        task: Named | Sequence[Named] | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 360,
    ) -> None:
        check_request(None, split)
        self.family = viewed(family)
        check_render_mode(self.family, render_mode, width, height)
        _check_batch(self.family, num_envs, autoreset_mode)
        if max_episode_steps is not None:
            _check_count("max_episode_steps", max_episode_steps)
        self.num_envs, self.split, self.render_mode = num_envs, split, render_mode
        self._size = width, height
        self.mode = AutoresetMode(autoreset_mode)
        self.metadata = {**render_metadata(self.family), "autoreset_mode": self.mode}
        self.single_observation_space = self.family.observation_space
        self.single_action_space = self.family.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.limit = max_episode_steps or self.family.horizon
        self._names = [p.name for p in self.family.task_space]
        self._fixed = None if task is None else self._named(task)
        self._now: Tasks | None = None

    # --- episodes

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start all episodes, or those of `options["reset_mask"]`; the seed decides tasks and starts."""
        options = {**check_options(options, "task", "reset_mask")}
        super().reset(seed=seed)
        self._rng = generator(int(self.np_random.integers(2**63)), self.family.device)
        everyone = np.ones(self.num_envs, np.bool_)
        mask = self._mask(options["reset_mask"]) if "reset_mask" in options else everyone
        asked = None if options.get("task") is None else self._named(options["task"])
        if self._now is None or mask.all():
            self._steps, self._ended = np.zeros(self.num_envs, np.int64), ~everyone
            self._now = tasks = asked or self._fixed or self._drawn(self.num_envs)
            self._seen = self.family.reset(tasks, 1, self._rng)
            mask = everyone
        else:
            self._restart(mask, asked)
        return self._observations(), masked({"task": self.task}, mask)

    @device.one_thread()
    def step(self, actions: Array) -> tuple[Array, Array, Mask, Mask, dict[str, Any]]:
        """Advance all episodes by one action each, [num_envs, A]; those that are over, as the mode says."""
        self._check_running()
        outcome = self.family.step(actions_for(self.family, actions, self.num_envs))
        self._seen, was_over = outcome.obs, self._ended
        self._steps += 1
        reward, terminated, target = (
            x[:, 0].cpu().numpy() for x in (outcome.reward, outcome.terminated, outcome.target)
        )
        reward, truncated, infos = reward.astype(np.float64), self._steps >= self.limit, {}
        if self.mode == AutoresetMode.NEXT_STEP:  # this step started anew what was over
            again = was_over
            reward[again], terminated, truncated = 0.0, terminated & ~again, truncated & ~again
        elif self.mode == AutoresetMode.SAME_STEP:
            again = terminated | truncated
            infos = self._final(again, target)
        else:
            again = np.zeros_like(was_over)
        self._ended = terminated | truncated
        if again.any():
            self._restart(again, None)
        infos |= masked({"task": self.task}, ~np.zeros_like(again)) | masked({"target": target}, ~again)
        return self._observations(), reward, terminated.copy(), truncated, infos

    def _check_running(self) -> None:
        if self._now is None:
            raise no_episode()
        if self.mode == AutoresetMode.DISABLED and self._ended.any():
            over = np.flatnonzero(self._ended).tolist()
            raise gym.error.ResetNeeded(f"the episodes of {over} are over: reset them with a reset_mask")

    def _restart(self, mask: Mask, asked: Tasks | None) -> None:
        """Start the masked episodes anew; all others keep their tasks, and what was seen of them last."""
        rows = torch.from_numpy(mask).to(self.family.device)
        new = asked or self._fixed
        chosen = Tasks(*(x[rows] for x in new)) if new else self._drawn(int(mask.sum()))
        assert self._now
        params, ids = (x.clone() for x in self._now)
        params[rows], ids[rows] = chosen.params, chosen.ids
        self._now = Tasks(params, ids)
        started = self.family.restart(rows[:, None], self._now, self._rng)
        self._seen = torch.where(rows.view(-1, *[1] * (started.ndim - 1)), started, self._seen)
        self._steps[mask], self._ended = 0, self._ended & ~mask

    # --- tasks

    @property
    def task(self) -> dict[str, Array]:
        """The numbers of the tasks being played, by name, [num_envs] each."""
        if self._now is None:
            raise no_episode()
        params = self._now.params.cpu().numpy().astype(np.float64)
        return {name: params[:, p] for p, name in enumerate(self._names)}

    def _named(self, task: Named | Sequence[Named]) -> Tasks:
        """Tasks for all, from one that all have, or from one for each."""
        first = task[0] if isinstance(task, Sequence | np.ndarray) and len(task) else task
        several = isinstance(first, Mapping | Sequence | np.ndarray) and first is not task
        each: Sequence[Any] = task if several else [task] * self.num_envs  # type: ignore[assignment]
        if len(each) != self.num_envs:
            raise ConfigError(f"task is a sequence of {len(each)}; allowed: one task, or {self.num_envs}")
        return named_tasks(self.family, [by_name(self.family, one) for one in each])

    def _drawn(self, n: int) -> Tasks:
        """n tasks of the split, each drawn for itself, so that they may be more than its pool has."""
        if self._pool is None:
            tasks: Tasks = self.family.sample_tasks(n, self.split, self._rng)
            return tasks
        size, where = len(self._pool.ids), self.family.device
        places = torch.randint(size, (n,), generator=self._rng, device=where)
        return Tasks(*(x[places] for x in self._pool))

    @cached_property
    def _pool(self) -> Tasks | None:
        """The split's whole pool; none where it is continuous."""
        try:
            pool: Tasks = self.family.sample_tasks(None, self.split, generator(0, self.family.device))
        except ConfigError:
            return None
        return pool

    # --- what Gymnasium wants to see

    def _mask(self, given: Any) -> Mask:
        good = isinstance(given, np.ndarray) and given.dtype == np.bool_ and given.shape == (self.num_envs,)
        if not (good and given.any()):
            raise ConfigError(
                f"options['reset_mask'] is {given!r}; "
                f"allowed: a bool array [{self.num_envs}] that is true somewhere"
            )
        return given.copy()

    def _observations(self) -> Array:
        """A copy of the last observations, [num_envs, O]."""
        return self._seen[:, 0].cpu().numpy().astype(self.single_observation_space.dtype)

    def _final(self, over: Mask, target: Array) -> dict[str, Any]:
        """What is known of episodes that end in this very step, before they start anew."""
        if not over.any():
            return {}
        last, obs = np.full(self.num_envs, None, dtype=object), self._observations()
        for i in np.flatnonzero(over):
            last[i] = obs[i]
        info = masked({"task": self.task, "target": target}, over)
        return {"final_obs": last, "_final_obs": over.copy(), "final_info": info, "_final_info": over.copy()}

    def render(self) -> tuple[Picture, ...] | None:
        """The present moment of each episode as a picture; None without a render mode."""
        if self.render_mode is None:
            gym.logger.warn('render needs a mode: gymnasium.make_vec(..., render_mode="rgb_array")')
            return None
        if self._now is None:
            raise no_episode()
        each = zip(poses(self.family, self._seen), self._now.params, strict=True)
        return tuple(self._painter(pose, params) for pose, params in each)

    def close_extras(self, **kwargs: Any) -> None:
        """Give back what drawing needed."""
        self._stop_drawing()


def _check_batch(family: Any, num_envs: int, autoreset_mode: AutoresetMode | str) -> None:
    _check_count("num_envs", num_envs)
    if not isinstance(autoreset_mode, AutoresetMode) and autoreset_mode not in MODES:
        raise ConfigError(f"autoreset_mode is {autoreset_mode!r}; allowed: {', '.join(MODES)}")
    if not hasattr(family, "restart"):
        raise ConfigError(
            f"family is {family.name!r}, which has no restart(ended, tasks, rng); "
            "allowed: one that has, or gymnasium.vector.SyncVectorEnv over GymnasiumView"
        )


def _check_count(name: str, value: Any) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ConfigError(f"{name} is {value!r}; allowed: 1 or more, a whole number")


def masked(values: Mapping[str, Any], mask: Mask) -> dict[str, Any]:
    """Infos in Gymnasium's manner: arrays [num_envs, ...], 0 where `mask` is not, beside it as "_name"."""
    infos = dict[str, Any]()
    if not mask.any():
        return infos
    for name, value in values.items():
        if isinstance(value, Mapping):
            infos[name] = masked(value, mask)
        else:
            here = mask.reshape(-1, *[1] * (np.ndim(value) - 1))
            infos[name] = np.where(here, np.asarray(value, np.float64), 0.0)
        infos[f"_{name}"] = mask.copy()
    return infos
