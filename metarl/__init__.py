"""Meta-reinforcement learning in PyTorch: agents that learn to adapt, trained and judged in one place."""

from . import device, statistics
from .device import generator
from .distributions import Categorical, Distribution, Gaussian, Head, Squashed, linear, perceptron
from .errors import ConfigError, MetarlError, RunError, TaskError, unknown
from .evaluation import Evaluation, evaluate
from .gaussian_mlp import GaussianMlp
from .inner_loop import InnerLoop, InnerStep, MetaObjective, inner_loops
from .loop import collect, milestones, opening, run_trial, train
from .memory import Each, Memory, make_memory
from .memory import Kind as MemoryKind
from .memory import State as MemoryState
from .networks import Convolutions, Embedding, Mlp, Moments, Network
from .normaliser import Normaliser
from .optimizer import Adam, remaining, shared_gradients
from .policy import Batch, Derivatives, Policy
from .ppo import Judgement, Ppo, PpoConfig
from .replay import Replay, Transitions, below, packed_width
from .returns import discounted_return, gae, linear_baseline, normalised
from .sac import SAC_METRICS, Experience, Sac, SacConfig
from .sequence import Sequence, delayed, require_target, steps_of, unroll
from .settings import STRICT, UNREADABLE, checked, read_yaml
from .trpo import Trpo, TrpoConfig
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
    "SAC_METRICS",
    "SPLITS",
    "STRICT",
    "UNREADABLE",
    "Act",
    "Adam",
    "Agent",
    "Batch",
    "Bounds",
    "Categorical",
    "ConfigError",
    "Convolutions",
    "Derivatives",
    "Distribution",
    "Each",
    "Embedding",
    "Evaluation",
    "Experience",
    "Family",
    "Gaussian",
    "GaussianMlp",
    "Head",
    "InnerLoop",
    "InnerStep",
    "Judgement",
    "Memory",
    "MemoryKind",
    "MemoryState",
    "MetaObjective",
    "MetarlError",
    "Mlp",
    "Moments",
    "Network",
    "Normaliser",
    "Outcome",
    "Policy",
    "Ppo",
    "PpoConfig",
    "Published",
    "Replay",
    "Rollout",
    "RunError",
    "Sac",
    "SacConfig",
    "Sequence",
    "Split",
    "Squashed",
    "Step",
    "TaskError",
    "TaskParameter",
    "Tasks",
    "Transitions",
    "Trial",
    "Trpo",
    "TrpoConfig",
    "below",
    "checked",
    "collect",
    "conjugate_gradient",
    "delayed",
    "device",
    "discounted_return",
    "evaluate",
    "gae",
    "generator",
    "inner_loops",
    "largest_step",
    "line_search",
    "linear",
    "linear_baseline",
    "make_memory",
    "milestones",
    "normalised",
    "opening",
    "packed_width",
    "perceptron",
    "read_yaml",
    "remaining",
    "require_target",
    "run_trial",
    "shared_gradients",
    "statistics",
    "steps_of",
    "train",
    "unknown",
    "unroll",
]
