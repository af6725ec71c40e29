"""The one place that knows about devices: generators, threads, and how many tasks are computed at once."""

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import TypeVar

import torch
from torch import Generator

from .errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")
CACHED_STEPS = 4096  # steps whose activations (64 wide, float32) stay in a second-level cache


def resolve(device: str | torch.device) -> torch.device:
    """The device of that name; ConfigError where this machine has none such."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ConfigError(f"device is {device!r}; allowed: cpu, cuda, cuda:0, ...") from None
    if found.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; allowed: cpu, cuda, cuda:0, ...")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {device!r}; this machine has {torch.cuda.device_count()} CUDA devices")
    return found


def generator(seed: int, device: str | torch.device = "cpu") -> Generator:
    """A generator for one run, on its device; nothing in metarl draws from the global one."""
    return Generator(resolve(device)).manual_seed(seed)


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold torch to one thread an operation: small tensors, and the physics' own pool, lose to more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def every_core() -> Iterator[None]:
    """Let torch share an operation among all cores: large tensors, as whole batches of pictures."""
    before = torch.get_num_threads()
    torch.set_num_threads(workers())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Let glibc reuse freed blocks: fresh pages for each activation cost as much as the arithmetic on it."""
    with suppress(OSError, AttributeError, TypeError):  # another C library: no harm
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at its maximum
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers(), "metarl", initializer=torch.set_num_threads, initargs=(1,))


def workers() -> int:
    """Threads that work on chunks of tasks: the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chunks(tasks: int, steps: int, device: torch.device) -> list[slice]:
    """Slices of tasks to compute at a time: as many as fit a core's cache on the CPU, all elsewhere."""
    size = max(1, CACHED_STEPS // steps) if device.type == "cpu" else tasks
    return parts(tasks, size)


def parts(tasks: int, size: int) -> list[slice]:
    """Slices of at most `size` tasks."""
    return [slice(i, min(i + size, tasks)) for i in range(0, tasks, size)]


def shares(learners: int, device: torch.device) -> int:
    """Into how many parts a minibatch of sequences goes: as many as two cores need, always the same."""
    return min(2, learners) if device.type == "cpu" else 1


def map_tasks(function: Callable[[T], R], chunks: Sequence[T]) -> list[R]:
    """Apply a function to chunks of tasks, in order; torch frees the interpreter lock, so threads help.

    The result does not depend on the number of threads: a chunk is computed whole, by one of them.
    """
    if len(chunks) == 1 or workers() == 1:
        return [function(chunk) for chunk in chunks]
    return list(_pool().map(torch.set_grad_enabled(torch.is_grad_enabled())(function), chunks))
