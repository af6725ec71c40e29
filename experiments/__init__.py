"""Where families meet agents: command line, configuration, training, report and results."""

from . import config, progress
from .cli import main, split_settings
from .config import Experiment, build, override, read, shipped, to_tree, to_yaml
from .session import Session, assess, judge, restored
from .training import resume, start

__all__ = [
    "Experiment",
    "Session",
    "assess",
    "build",
    "config",
    "judge",
    "main",
    "override",
    "progress",
    "read",
    "restored",
    "resume",
    "shipped",
    "split_settings",
    "start",
    "to_tree",
    "to_yaml",
]
