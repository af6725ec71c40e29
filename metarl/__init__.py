"""Meta-reinforcement learning in PyTorch: agents that learn to adapt, trained and judged in one place."""

from . import device, statistics
from .device import generator
from .errors import ConfigError, MetarlError, RunError, TaskError, unknown
from .evaluation import Evaluation, evaluate
from .gaussian_mlp import GaussianMlp
from .inner_loop import InnerLoop, InnerStep, MetaObjective, inner_loops
from .loop import closing, collect, milestones, opening, run_trial, train
from .policy import Batch, Derivatives, Gaussian, Policy
from .returns import discounted_return, gae, linear_baseline, normalised
from .settings import STRICT, UNREADABLE, checked, read_yaml
from .trust_region import conjugate_gradient, largest_step, line_search
from .types import (
    SPLITS,
    Act,
    Agent,
    Bounds,
    Family,
    Outcome,
    Published,
    Rollout,
    Split,
    Step,
    TaskParameter,
    Tasks,
    Trial,
)

device.keep_freed_memory()

__version__ = "0.1.0"
__all__ = [
    "SPLITS",
    "STRICT",
    "UNREADABLE",
    "Act",
    "Agent",
    "Batch",
    "Bounds",
    "ConfigError",
    "Derivatives",
    "Evaluation",
    "Family",
    "Gaussian",
    "GaussianMlp",
    "InnerLoop",
    "InnerStep",
    "MetaObjective",
    "MetarlError",
    "Outcome",
    "Policy",
    "Published",
    "Rollout",
    "RunError",
    "Split",
    "Step",
    "TaskError",
    "TaskParameter",
    "Tasks",
    "Trial",
    "checked",
    "closing",
    "collect",
    "conjugate_gradient",
    "device",
    "discounted_return",
    "evaluate",
    "gae",
    "generator",
    "inner_loops",
    "largest_step",
    "line_search",
    "linear_baseline",
    "milestones",
    "normalised",
    "opening",
    "read_yaml",
    "run_trial",
    "statistics",
    "train",
    "unknown",
]
