"""Few-shot classification: whose picture is this, among a few classes of which one has seen some pictures?

An example is an episode of one step: the observation is a picture, the action the class that it is taken for,
the reward 1 where that is right, and the target (label, class): the right answer, and the number of its class
among all. A task is an episode in the sense of Vinyals et al. 2016: `way` classes, and an order of each one's
pictures. It is a pure function of the seed, the pool and its number, by hashing: any of them can be dealt
again, on any device, and whole meta-batches are gathered by one indexing operation.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import NamedTuple

import gymnasium as gym
import torch
from torch import Generator, Tensor

from metarl import Bounds, ConfigError, Outcome, Published, Split, TaskParameter, Tasks

from ..tasks import CONTINUOUS, check_request, from_pool
from .images import Images

POOL = 600  # episodes to test on
LAST = 2**24 - 1  # number of the last training episode: float32 still tells it from the others
NUMBERS: dict[Split, int] = {"train": 0, "test": 1, "ood": 2}  # of the pools
SEED = 20  # of all episodes
NEVER = 2**63 - 1


class Stock(NamedTuple):
    """All pictures on one device, and which classes a pool's episodes are made of."""

    pixels: Tensor  # [C, M, channels, H, W] uint8
    available: Tensor  # [C], pictures of each class
    pools: Tensor  # [3, C], bool: the classes of each pool
    group: Tensor  # [C], the number of each class's group
    names: tuple[str, ...]  # of the classes


class Episodes(ABC):
    """Classes in pools; a subclass loads the pictures, when they are first needed."""

    horizon = 1
    shared_splits = False
    published: tuple[Published, ...] = ()
    first_tells = True  # an input is of its task
    view = "pictures"

    name: str
    summary: str
    way: int
    shape: tuple[int, int, int]  # channels, height, width

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.observation_space = gym.spaces.Box(0.0, 1.0, self.shape)
        self.action_space = gym.spaces.Discrete(self.way)
        self.task_space = (
            TaskParameter("pool", "", 0, 2, 0, 0, tuple(map(float, NUMBERS.values()))),
            TaskParameter("episode", "", 0, LAST, 0, LAST),
        )

    @abstractmethod
    def load(self) -> dict[Split, Images]:
        """The pictures of each split.

        Where "ood" is missing, its classes are those of test, and an episode's are of one group, or of as few
        as there have to be.
        """

    @cached_property
    def stock(self) -> Stock:
        """The pictures on the device; ConfigError where an episode needs more classes than there are."""
        parts = self.load()
        whole = [images for images in parts.values() if len(images.names)]
        splits = [split for split, images in parts.items() for _ in images.names]
        names = [name for images in whole for name in images.groups]
        numbers = {name: number for number, name in enumerate(sorted({*names}))}
        own = {split: torch.tensor([s == split for s in splits]) for split in NUMBERS}
        if "ood" not in parts:
            own["ood"] = own["test"]
        for split, mask in own.items():
            if mask.sum() < self.way:
                raise ConfigError(f"way is {self.way}; allowed: up to the {int(mask.sum())} {split} classes")
        most = max(images.pixels.shape[1] for images in whole)
        return Stock(
            torch.cat([padded(images.pixels, most) for images in whole]).to(self.device),
            torch.cat([images.available for images in whole]).to(self.device),
            torch.stack([own[split] for split in NUMBERS]).to(self.device),
            torch.tensor([numbers[name] for name in names], device=self.device),
            tuple(name for images in whole for name in images.names),
        )

    # --- tasks

    def sample_tasks(self, n: int | None, split: Split, rng: Generator) -> Tasks:
        """Training episodes at random, or those of a pool."""
        check_request(n, split)
        dtype = torch.get_default_dtype()
        if split != "train":
            pool = torch.arange(POOL, device=self.device, dtype=dtype)
            return from_pool(torch.stack([torch.full_like(pool, NUMBERS[split]), pool], 1), n, split, rng)
        if n is None:
            raise ConfigError("the train split has too many episodes for a whole: give a number of tasks")
        number = torch.randint(LAST + 1, (n,), generator=rng, device=self.device).to(dtype)
        ids = torch.full((n,), CONTINUOUS, device=self.device)
        return Tasks(torch.stack([torch.zeros_like(number), number], 1), ids)

    def classes(self, tasks: Tasks) -> Tensor:
        """The classes of each episode, in the order of their labels, [N, way]."""
        stock, (pool, number) = self.stock, tasks.params.long().unbind(-1)
        every = torch.arange(len(stock.group), device=self.device)
        keys = hashed(SEED, pool[:, None], number[:, None], 1, every)
        if (pool == NUMBERS["ood"]).any():  # group by group, in an order of the episode's own
            turn = hashed(SEED, pool[:, None], number[:, None], 0, stock.group).bitwise_and(-(2**24))
            grouped = turn + keys.bitwise_right_shift(39)
            keys = torch.where((pool == NUMBERS["ood"])[:, None], grouped, keys)
        return keys.masked_fill(~stock.pools[pool], NEVER).topk(self.way, largest=False)[1]

    def order(self, tasks: Tasks, classes: Tensor) -> Tensor:
        """In which order an episode deals each class's pictures, [N, way, M]; missing ones come last."""
        stock, (pool, number) = self.stock, tasks.params.long().unbind(-1)
        every = torch.arange(stock.pixels.shape[1], device=self.device)
        keys = hashed(SEED, pool[:, None, None], number[:, None, None], 2, classes[..., None], every)
        return keys.masked_fill(every >= stock.available[classes][..., None], NEVER).argsort(-1)

    # --- the world

    def deal(self, tasks: Tasks, episodes: int, rng: Generator, played: int) -> Tensor:
        """A trial's next pictures, as many of each class and none twice, [N, E, *shape].

        Raises ConfigError where the classes cannot have equal shares, or have too few pictures.
        """
        for number in (episodes, played):
            if number % self.way:
                raise ConfigError(
                    f"rounds has {number} examples; allowed for {self.way} classes: multiples of {self.way}"
                )
        classes = self.classes(tasks)
        fewest, wanted = int(self.stock.available[classes].min()), (played + episodes) // self.way
        if wanted > fewest:
            raise ConfigError(
                f"rounds takes {wanted} pictures of each class; allowed: {fewest}, as the smallest one has"
            )
        place = torch.arange(played, played + episodes, device=self.device)
        label = (place % self.way).expand(len(classes), -1)
        picture = self.order(tasks, classes)[:, place % self.way, place // self.way]
        return self._show(classes.gather(1, label), label, picture)

    def reset(self, tasks: Tasks, episodes: int, rng: Generator) -> Tensor:
        """Pictures drawn with replacement, [N, E, *shape]."""
        shape = len(tasks.ids), episodes
        label = torch.randint(self.way, shape, generator=rng, device=self.device)
        u = torch.rand(shape, generator=rng, device=self.device)
        classes = self.classes(tasks).gather(1, label)
        return self._show(classes, label, (u * self.stock.available[classes]).long())

    def restart(self, ended: Tensor, tasks: Tasks, rng: Generator) -> Tensor:
        """Draw those that a mask [N, E] marks anew; all pictures, [N, E, *shape]."""
        before = self._class, self._label, self._picture
        self.reset(tasks, ended.shape[1], rng)
        now = self._class, self._label, self._picture
        return self._show(*(torch.where(ended.bool(), x, y) for x, y in zip(now, before, strict=True)))

    def _show(self, classes: Tensor, label: Tensor, picture: Tensor) -> Tensor:
        self._class, self._label, self._picture = classes, label, picture
        return self.stock.pixels[classes, picture].to(torch.get_default_dtype()).div_(255)

    def step(self, action: Tensor) -> Outcome:
        """Judge the answers, [N, E]; nothing follows."""
        reward = (action == self._label).to(torch.get_default_dtype())
        nothing = torch.zeros((), device=self.device).expand(*reward.shape, *self.shape)
        target = torch.stack([self._label, self._class], -1)
        return Outcome(nothing, reward, torch.zeros_like(reward).bool(), target)

    def bounds(self, tasks: Tasks) -> Bounds:
        """Floor: to guess. Oracle: always right."""
        right = torch.ones_like(tasks.params[:, 0])
        return Bounds(right / self.way, right)


def padded(pixels: Tensor, pictures: int) -> Tensor:
    """Pictures [C, M, ...] with zeros behind, [C, pictures, ...]: splits may have classes of other sizes."""
    missing = pixels.new_zeros(len(pixels), pictures - pixels.shape[1], *pixels.shape[2:])
    return torch.cat([pixels, missing], 1)


def hashed(*parts: int | Tensor) -> Tensor:
    """A number in [0, 2^63 - 1) for each combination of the parts, which broadcast: SplitMix64's mixing.

    Steele et al. 2014, "Fast splittable pseudorandom number generators"; equal on every device.
    """
    state: Tensor = torch.zeros((), dtype=torch.int64)
    for part in parts:
        state = (state.to(part.device) if isinstance(part, Tensor) else state) ^ part
        state = state + _signed(0x9E3779B97F4A7C15)
        state = (state ^ _shifted(state, 30)) * _signed(0xBF58476D1CE4E5B9)
        state = (state ^ _shifted(state, 27)) * _signed(0x94D049BB133111EB)
        state = state ^ _shifted(state, 31)
    return _shifted(state, 1).clamp(max=NEVER - 1)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted to the right as if unsigned."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def _signed(x: int) -> int:
    """The int64 with the bits of an unsigned number."""
    return x - 2**64 if x >= 2**63 else x
