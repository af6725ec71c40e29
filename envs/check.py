"""What every family promises, as one function: `check_family`, for ours and for yours."""

from collections.abc import Sequence
from itertools import combinations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from metarl import (
    SPLITS,
    Act,
    ConfigError,
    Family,
    Rollout,
    Split,
    Step,
    Tasks,
    Trial,
    collect,
    generator,
    opening,
)
from metarl.promises import global_generators, require, same

from .tasks import CONTINUOUS

TASKS, EPISODES = 3, 2  # of every round played here; different, so that swapped axes show
SAMPLE = 32  # tasks drawn where a split is continuous


def check_family(family: Family) -> None:
    """Raise an AssertionError that says which promise the family breaks; a few short rounds are played."""
    before = global_generators()
    _check_description(family)
    _check_requests(family)
    splits = {split: _check_split(family, split) for split in SPLITS}
    if not family.shared_splits:
        _check_disjoint(splits)
    two = Tasks(*(torch.stack([x[0], x[-1]]) for x in splits["test"]))
    _check_shapes(family, two)
    _check_memory(family, two)
    _check_rollouts(family, two)
    _check_isolation(family, two)
    for split, tasks in splits.items():
        if not getattr(family, "first_tells", False):  # as where it is an input to be classified
            _check_start(family, tasks, split)
        _check_bounds(family, tasks, split)
    require(before == global_generators(), "a global generator was used: draw from the one that is passed")


# --- what a family says


def _check_description(family: Family) -> None:
    lines = f"{family.name}{family.summary}".splitlines()
    require(family.name and family.summary and len(lines) == 1, "name and summary have to be a line each")
    require(family.horizon >= 1, f"horizon is {family.horizon}; allowed: 1 or more")
    box, space = gym.spaces.Box, family.observation_space
    require(isinstance(space, box), f"the observation space has to be a Box, and is {space}")
    space = family.action_space
    known = isinstance(space, box) or (isinstance(space, gym.spaces.Discrete) and space.start == 0)
    require(known, f"the action space has to be a Box, or Discrete from 0, and is {space}")
    finite = _limits(family).isfinite().all()
    require(finite, f"the action space has to be finite, and is {family.action_space}")
    names = [p.name for p in family.task_space]
    require(names and len({*names}) == len(names), f"task parameters need different names; they are {names}")
    for p in family.task_space:
        ordered = p.low <= p.train_low <= p.train_high <= p.high
        require(ordered, f"{p.name}: needs low <= train_low <= train_high <= high, and is {p}")


def _check_requests(family: Family) -> None:
    """Requests that cannot be met are refused in the project's own words."""
    for n, split in (0, "train"), (0, "test"), (1, "validation"):
        require(_refuses(family, n, split), f"sample_tasks({n}, {split!r}) has to raise a ConfigError")


def _refuses(family: Family, n: int | None, split: str) -> bool:
    try:
        family.sample_tasks(n, split, generator(0, family.device))  # type: ignore[arg-type]
    except Exception as error:
        return isinstance(error, ConfigError)
    return False


def _check_split(family: Family, split: Split) -> Tasks:
    """The split's pool or, where training is continuous, a sample; each checked for what it has to be."""
    continuous = _refuses(family, None, split)
    require(not continuous or split == "train", f"{split} has to be a fixed pool, given whole for n=None")
    n = SAMPLE if continuous else None
    tasks, again, other = (family.sample_tasks(n, split, generator(s, family.device)) for s in (0, 0, 1))
    require(same(tasks, again), f"{split}: the same generator state has to give the same tasks")
    space = family.task_space
    right = tasks.params.shape == (len(tasks.ids), len(space))
    require(right, f"{split}: params are {[*tasks.params.shape]}; wanted: [N, {len(space)}]")
    if continuous:
        require((tasks.ids == CONTINUOUS).all(), f"{split} is continuous: its ids have to be {CONTINUOUS}")
    else:
        require(same(tasks, other), f"{split}: the whole pool has to be the same at every call")
        _check_pool(family, split, tasks)
    for p, column in zip(space, tasks.params.unbind(-1), strict=True):
        low, high = (p.train_low, p.train_high) if split == "train" else (p.low, p.high)
        edges = column.new_tensor([low, high])  # in the tasks' own precision
        inside = (edges[0] <= column) & (column <= edges[1])
        wrong = column[~inside].tolist()
        require(not wrong, f"{split}: {p.name} is {wrong}; allowed: {low:g} to {high:g}")
    return tasks


def _check_pool(family: Family, split: Split, pool: Tasks) -> None:
    """Ids are places in the pool, and a draw repeats none of them."""
    places = torch.arange(len(pool.ids), device=pool.ids.device)
    require(torch.equal(pool.ids, places), f"{split}: the whole pool has to come in order, ids 0, 1, 2, ...")
    drawn = family.sample_tasks(len(places), split, generator(0, family.device))
    require(torch.equal(drawn.ids.sort()[0], places), f"{split}: a draw has to be of different tasks")
    require(torch.equal(pool.params[drawn.ids], drawn.params), f"{split}: ids have to be places in the pool")
    require(_refuses(family, len(places) + 1, split), f"{split}: more tasks than the pool has to be refused")


def _check_disjoint(splits: dict[Split, Tasks]) -> None:
    rows = {split: {*map(tuple, tasks.params.tolist())} for split, tasks in splits.items()}
    for one, other in combinations(rows, 2):
        common = sorted(map(list, rows[one] & rows[other]))
        require(not common, f"{one} and {other} share tasks {common}; declare shared_splits")


# --- how a family plays


class _Script(nn.Module):
    """A player of actions that were fixed beforehand, [T, N, E, ...]; its belief is the time."""

    def __init__(self, actions: Tensor) -> None:
        super().__init__()
        self.actions = actions

    def check_rounds(self, rounds: Sequence[int]) -> None:
        """Any will do."""

    def begin(self, tasks: int, episodes: int) -> int:
        return 0

    def act(self, belief: int, step: Step, explore: bool) -> tuple[Act, int]:
        nothing = torch.zeros_like(step.reward)
        return Act(self.actions[belief], nothing, nothing), belief + 1

    def adapt(self, belief: int, rollout: Rollout) -> int:
        return belief

    def meta_update(self, trial: Trial) -> dict[str, float]:
        return {}


def _limits(family: Family) -> Tensor:
    """The lowest and the highest actions, [2, A], or [2] of a discrete space."""
    space = family.action_space
    if isinstance(space, gym.spaces.Discrete):
        return torch.tensor([0, space.n - 1], device=family.device)
    limits = np.stack([space.low, space.high])
    return torch.tensor(limits, dtype=torch.get_default_dtype(), device=family.device)


def _actions(family: Family, seed: int) -> Tensor:
    """Random actions, [T, N, E, ...]; of a Box, some lie beyond it as a Gaussian policy's do."""
    low, high = _limits(family)
    rng = generator(seed, family.device)
    if not low.is_floating_point():
        shape = family.horizon, TASKS, EPISODES
        return torch.randint(int(high) + 1, shape, generator=rng, device=family.device)
    noise = torch.empty(family.horizon, TASKS, EPISODES, *low.shape, device=family.device)
    return (low + high) / 2 + (high - low) / 2 * noise.normal_(generator=rng)


def _play(family: Family, tasks: Tasks, actions: Tensor) -> Rollout:
    obs = family.reset(tasks, EPISODES, generator(0, family.device))
    return collect(family, _Script(actions), 0, opening(family, obs, ()))[0]


def _pick(tasks: Tasks, *places: int) -> Tasks:
    return Tasks(tasks.params[[*places]], tasks.ids[[*places]])


def _check_shapes(family: Family, two: Tasks) -> None:
    """Shapes, types and devices of a reset and a step."""
    obs = family.reset(_pick(two, 0, 1, 0), EPISODES, generator(0, family.device))
    outcome = family.step(_actions(family, 0)[0])
    real, batch = torch.get_default_dtype(), (TASKS, EPISODES)
    features = family.observation_space.shape
    for name, x, shape, dtype in (
        ("reset", obs, batch + features, real),
        ("obs", outcome.obs, batch + features, real),
        ("reward", outcome.reward, batch, real),
        ("terminated", outcome.terminated, batch, torch.bool),
        ("target", outcome.target, batch + tuple(outcome.target.shape[2:]), outcome.target.dtype),
    ):
        require(x.shape == shape, f"{name} is {[*x.shape]}; wanted: {[*shape]} for N, E = {[*batch]}")
        require(x.dtype == dtype, f"{name} is {x.dtype}; wanted: {dtype}")
        require(x.device == obs.device, f"{name} is on {x.device}, the first observation on {obs.device}")
    require(obs.device.type == family.device.type, f"observations are on {obs.device}, not {family.device}")


def _check_rollouts(family: Family, two: Tasks) -> None:
    """Whole episodes stay finite and inside the observation space, whatever the actions."""
    chance, space = _actions(family, 0), family.observation_space
    for actions in chance, *(limit.expand_as(chance) for limit in _limits(family)):
        rollout = _play(family, _pick(two, 0, 1, 0), actions)
        for obs in rollout.obs.cpu().numpy(), rollout.next_obs.cpu().numpy():
            inside = (space.low <= obs) & (obs <= space.high)  # false for NaN, too
            require(inside.all(), f"observations {obs[~inside][:4]} lie outside {space}")
        for name in ("obs", "next_obs", "reward", "target"):
            require(getattr(rollout, name).isfinite().all(), f"{name} is not finite")
        later = rollout.terminated[1:] | ~rollout.terminated[:-1]
        require(later.all(), "an episode that has terminated goes on")
        require((rollout.reward[~rollout.valid] == 0).all(), "a reward follows a termination")


def _check_isolation(family: Family, two: Tasks) -> None:
    """An episode does not depend on the tasks and actions beside it, nor on what was played before."""
    actions, mixed = _actions(family, 0), _actions(family, 1)
    mixed[:, 0, 0], mixed[:, -1, -1] = actions[:, 0, 0], actions[:, -1, -1]
    alone = _play(family, _pick(two, 0, 0, 0), actions)
    crowd = _play(family, _pick(two, 0, 1, 0), mixed)
    again = _play(family, _pick(two, 0, 0, 0), actions)
    require(same(alone, again), "the same generator state and actions have to give the same rollout")
    for n, e in (0, 0), (-1, -1):
        ours, theirs = ([x[:, n, e] for x in rollout] for rollout in (alone, crowd))
        require(same(ours, theirs), "an episode depends on the tasks or the actions beside it")


def _check_memory(family: Family, two: Tasks) -> None:
    """What was handed out stays as it was while the world goes on, and so does the action given."""
    tasks, actions = _pick(two, 0, 1, 0), _actions(family, 0)
    given = [x.clone() for x in (*tasks, actions)]
    held = [family.reset(tasks, EPISODES, generator(0, family.device)), *family.step(actions[0])]
    copies = [x.clone() for x in held]
    for action in actions[1:3]:
        family.step(action)
    family.reset(tasks, EPISODES, generator(1, family.device))
    require(same(held, copies), "what reset or step returned changes as the world goes on: hand out copies")
    require(same(given, (*tasks, actions)), "the tasks or the action that were given are written into")


def _check_start(family: Family, tasks: Tasks, split: str) -> None:
    """The first observation does not tell the task."""
    others = Tasks(*(x.roll(1, 0) for x in tasks))
    first, second = (family.reset(x, EPISODES, generator(0, family.device)) for x in (tasks, others))
    require(torch.equal(first, second), f"{split}: the first observation tells the task")


def _check_bounds(family: Family, tasks: Tasks, split: str) -> None:
    bounds = family.bounds(tasks)
    for name, bound in zip(bounds._fields, bounds, strict=True):
        wanted = tasks.ids.shape
        require(bound.shape == wanted, f"{split}: the {name} is {[*bound.shape]}; wanted: {[*wanted]}")
        require(bound.isfinite().all(), f"{split}: the {name} is not finite")
    wrong = bounds.floor > bounds.oracle
    require(not wrong.any(), f"{split}: the floor is above the oracle in {int(wrong.sum())} tasks")
