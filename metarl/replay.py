"""Replay: what each task has shown, in tensors that are made once, of which a batch is one gather."""

from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from .errors import ConfigError
from .sequence import Sequence
from .types import Tasks


class Transitions(NamedTuple):
    """Steps, [..., n] each; where they follow each other, in that order."""

    obs: Tensor  # [..., n, O]
    action: Tensor  # [..., n, A]
    next_obs: Tensor  # [..., n, O]
    reward: Tensor  # what is scored, and what adaptation may read
    target: Tensor  # what only training may read
    terminated: Tensor  # 1 where the episode ended with the step, and not by the clock
    done: Tensor  # 1 where an episode ended with the step before
    valid: Tensor  # 1 where the step was played

    def pack(self) -> Tensor:
        """All in one row a step, [..., n, F]."""
        scalars = torch.stack([x.to(self.obs.dtype) for x in self[3:]], -1)
        return torch.cat([*self[:3], scalars], -1)

    @classmethod
    def unpack(cls, rows: Tensor, observed: int, acted: int) -> "Transitions":
        """Views of rows [..., n, F]."""
        vectors = rows.split([observed, acted, observed, rows.shape[-1] - 2 * observed - acted], -1)
        return cls(*vectors[:3], *vectors[3].unbind(-1))

    @classmethod
    def of(cls, steps: Sequence, tasks: int) -> "Transitions":
        """The steps of a sequence, task by task and learner by learner, [N, E L]."""
        fields = (
            *(steps.obs, steps.action, steps.next_obs, steps.reward, steps.target),
            *(steps.terminated, steps.done, steps.valid),
        )
        return cls(*(x.unflatten(1, (tasks, -1)).movedim(0, 2).flatten(1, 2) for x in fields))


def packed_width(observed: int, acted: int) -> int:
    """F, the numbers of a packed step."""
    return 2 * observed + acted + len(Transitions._fields) - 3


class Replay(nn.Module):
    """The last `capacity` rows of each of `slots` tasks, [slots, capacity, F].

    A task of a fixed pool has the slot of its id; one from a continuous distribution takes the next slot in
    turn, and with it the place of an older task. Only what is filled goes into the state_dict.
    """

    def __init__(self, slots: int, capacity: int, features: int, device: torch.device) -> None:
        super().__init__()
        self.slots, self.capacity = slots, capacity
        whole = torch.zeros(slots, dtype=torch.int64, device=device)
        # not written before it is used: on a CPU what stays empty takes no memory
        self.register_buffer("data", torch.empty(slots, capacity, features, device=device))
        self.register_buffer("size", whole)  # rows of each slot
        self.register_buffer("place", whole.clone())  # where its next row goes
        self.register_buffer("turn", whole[0].clone())  # the next slot of a task without an id
        self.data: Tensor
        self.size: Tensor
        self.place: Tensor
        self.turn: Tensor

    def slots_of(self, tasks: Tasks) -> Tensor:
        """The slot of each task, [N]; those without an id take over slots, which are emptied.

        Raises ConfigError where there are not enough.
        """
        ids = tasks.ids
        new = ids < 0
        self.check_pool(max(int(ids.max()) + 1, int(new.sum())))
        found = torch.where(new, (self.turn + new.cumsum(0) - 1) % self.slots, ids)
        self.turn = (self.turn + new.sum()) % self.slots
        self.clear(found[new])
        return found

    def check_pool(self, tasks: int) -> None:
        """Raise ConfigError where there are fewer slots than tasks that have to be held at once."""
        if tasks > self.slots:
            raise ConfigError(
                f"agent.replay_tasks is {self.slots}; allowed: {tasks} or more, as many as are trained on"
            )

    def clear(self, slots: Tensor) -> None:
        """Forget what is in these slots."""
        self.size[slots] = 0
        self.place[slots] = 0

    def add(self, slots: Tensor, rows: Tensor, kept: Tensor) -> None:
        """Append the rows [N, K, F] that a mask [N, K] marks to different slots [N], in order."""
        number = kept.cumsum(1)
        count = number[:, -1]
        last = kept & (count[:, None] - number < self.capacity)  # more than fit: the newest
        place = (self.place[slots, None] + number - 1) % self.capacity
        self.data[slots[:, None].expand_as(place)[last], place[last]] = rows[last]
        self.place[slots] = (self.place[slots] + count) % self.capacity
        self.size[slots] = (self.size[slots] + count).clamp(max=self.capacity)

    def draw(self, slots: Tensor, n: int, rng: Generator) -> Tensor:
        """n rows of each of these slots [M], which are not empty, with replacement: [M, n, F]."""
        return self.rows(slots, below(self.size[slots], n, rng))

    def rows(self, slots: Tensor, index: Tensor) -> Tensor:
        """The rows at [M, n] of slots [M], [M, n, F]."""
        return self.data[slots[:, None], index]

    @property
    def filled(self) -> Tensor:
        """The slots that hold something, [S]."""
        return self.size.nonzero().squeeze(-1)

    # --- what is saved

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        filled = int(self.size.max())
        empty = torch.arange(filled, device=self.size.device) >= self.size[:, None]
        destination[prefix + "data"] = self.data[:, :filled].masked_fill(empty[..., None], 0.0)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        name = prefix + "data"
        saved = state_dict.get(name)
        if saved is not None and saved.shape[1] <= self.capacity:
            whole = torch.empty_like(self.data)
            whole[:, : saved.shape[1]] = saved
            state_dict = {**state_dict, name: whole}
        super()._load_from_state_dict(state_dict, prefix, *rest)


def below(limits: Tensor, n: int, rng: Generator) -> Tensor:
    """n whole numbers from 0, ..., limit - 1 for each limit [M], uniform, [M, n]."""
    u = torch.rand(len(limits), n, generator=rng, device=limits.device)
    return torch.minimum((u * limits[:, None]).long(), limits[:, None] - 1)
