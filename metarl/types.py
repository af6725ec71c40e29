"""The vocabulary of metarl: tasks, steps, rollouts and trials, and the two protocols that meet in the loop.

Axes stand always in this order: T time, N tasks, E episodes side by side, then features.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import gymnasium as gym
import torch
from torch import Generator, Tensor

Split = Literal["train", "test", "ood"]
SPLITS: tuple[Split, ...] = ("train", "test", "ood")


class Tasks(NamedTuple):
    """N tasks, each a row of numbers."""

    params: Tensor  # [N, P], in the order of the family's task_space
    ids: Tensor  # [N], place in the split's fixed pool; -1 for a task drawn from a continuous distribution


class TaskParameter(NamedTuple):
    """One number of a task: its name and unit, the range that is accepted and the one that is trained.

    With `values`, only these numbers are accepted. With a `default`, who names a task may leave it out.
    """

    name: str
    unit: str
    low: float
    high: float
    train_low: float
    train_high: float
    values: tuple[float, ...] = ()
    default: float | None = None


class Bounds(NamedTuple):
    """The returns between which an agent moves, task by task."""

    floor: Tensor  # [N], what doing nothing earns
    oracle: Tensor  # [N], what the best policy that knows the task earns, or a bound that none can pass


class Published(NamedTuple):
    """Returns after 0, 1, 2, ... adaptations that a paper reports on exactly this family."""

    name: str
    returns: tuple[float, ...]
    source: str


class Step(NamedTuple):
    """What an agent sees before it acts; the last three belong to the step before."""

    obs: Tensor  # [N, E, O]
    action: Tensor  # [N, E, A]; where the action space is Discrete, [N, E] int64
    reward: Tensor  # [N, E]
    done: Tensor  # [N, E], 1 where an episode ended with the step before


class Act(NamedTuple):
    """What an agent answers; zeros where it has no density or no critic."""

    action: Tensor  # [N, E, A]; where the action space is Discrete, [N, E] int64
    log_prob: Tensor  # [N, E]
    value: Tensor  # [N, E]


class Outcome(NamedTuple):
    """What the world answers to an action."""

    obs: Tensor  # [N, E, O]
    reward: Tensor  # [N, E], what is scored, and what adaptation may read
    terminated: Tensor  # [N, E], bool
    target: Tensor  # [N, E, ...], what only meta_update may read, a dense or noiseless reward; or an answer


class Rollout(NamedTuple):
    """One round: every episode once, side by side. After an end `terminated` stays true, reward 0."""

    obs: Tensor  # [T, N, E, O]
    action: Tensor  # [T, N, E, A]; where the action space is Discrete, [T, N, E] int64
    reward: Tensor  # [T, N, E]
    terminated: Tensor  # [T, N, E], bool
    next_obs: Tensor  # [T, N, E, O]
    target: Tensor  # [T, N, E, ...]
    log_prob: Tensor  # [T, N, E]
    value: Tensor  # [T, N, E]

    @property
    def valid(self) -> Tensor:
        """[T, N, E], bool: the steps that were played, up to and with the one that terminated."""
        first = torch.zeros_like(self.terminated[:1])
        return ~torch.cat([first, self.terminated[:-1]])

    @property
    def returns(self) -> Tensor:
        """[N, E], undiscounted."""
        return self.reward.sum(0)


class Trial(NamedTuple):
    """A few rounds in the same tasks, with an adaptation between each two."""

    tasks: Tasks
    rounds: tuple[Rollout, ...]


class Family(Protocol):
    """A distribution over tasks and a batched world that plays many of them at once.

    A few-shot problem is a family of one step: the observation is the input, the action the prediction, and
    the target the right answer. There a round is not one of episodes but of examples, and `adapt` may read
    its target; where the input is of the task, `first_tells` is true. Where no example may come twice in a
    trial, the family has `deal(tasks, episodes, rng, played)` for it beside `reset`, `played` being how many
    each task has had.

    Besides, a family may have what only some of its users ask for: `restart(ended, tasks, rng)`, which
    starts the episodes that a mask [N, E] marks anew and returns all observations, for VectorView; and for
    pictures a robot's `model`, `qpos` [N, E, nq] and `dt`, the seconds of a step, or, where `view` is
    "plane" and the first two observations are a position, `goals(tasks)` [N, 2].
    """

    name: str
    summary: str  # one line, for `metarl list`
    horizon: int  # steps of an episode
    device: torch.device
    observation_space: "gym.spaces.Box[Any]"
    action_space: Any  # gym.spaces.Box, or gym.spaces.Discrete from 0
    shared_splits: bool  # True: the family has so few tasks that its splits are the same

    @property
    def task_space(self) -> tuple[TaskParameter, ...]:
        """What the numbers of a task mean, and their ranges."""

    @property
    def published(self) -> tuple[Published, ...]:
        """Published results; the first is the one to beat."""

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """Draw n tasks; None is the whole of a fixed pool, in order. Test and ood are fixed pools.

        Raises ConfigError for an unknown split, n < 1, or n beyond the pool.
        """

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """Start `episodes` episodes of each task and return their first observations, [N, E, O]."""

    def step(self, action: Tensor) -> Outcome:
        """Advance all episodes by one action each; what follows a termination is masked by the loop."""

    def bounds(self, tasks: Tasks) -> Bounds:
        """The floor and the ceiling of each task's expected undiscounted return."""


B = TypeVar("B")


class Agent(Protocol[B]):
    """A learner whose knowledge of each task is an explicit value, the belief; also a torch Module.

    A belief is a tensor whose first axis is the tasks, or tuples, lists and dicts of such, beside plain
    values. Besides, an agent may have `unit`, "episodes" where it learns within them and reports should
    not speak of adaptations, `check_pool(tasks)`, which raises ConfigError where it cannot remember a
    fixed pool of so many training tasks, `untrained`, true where evaluation would be for nothing,
    `variants(belief)`, beliefs by name with which evaluation plays the last round anew, and
    `posterior(trial)`, the means and standard deviations [L, N E, Z] of what it believes of the tasks at
    every step of a trial, for reports.
    """

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """Raise ConfigError where it cannot learn from trials with so many episodes in each round."""

    def begin(self, tasks: int, episodes: int) -> B:
        """The belief before any data."""

    def act(self, belief: B, step: Step, explore: bool) -> tuple[Act, B]:
        """Choose actions for all episodes; a recurrent agent's belief moves here."""

    def adapt(self, belief: B, rollout: Rollout) -> B:
        """Learn from one round; tasks never touch each other here."""

    def meta_update(self, trial: Trial) -> dict[str, float]:
        """Learn across tasks, and say what happened."""

    def state_dict(self) -> dict[str, Any]:
        """Everything learned, as tensors."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take back what state_dict gave."""
