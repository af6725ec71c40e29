"""The agents; a new one is one file and one line here."""

from typing import Any

from .check import check_agent
from .maml_trpo import MamlTrpo
from .rl2 import Rl2
from .solvers import SOLVERS
from .varibad import Varibad

AGENTS: dict[str, type[Any]] = {"maml_trpo": MamlTrpo, "rl2": Rl2, "varibad": Varibad}

__all__ = ["AGENTS", "SOLVERS", "MamlTrpo", "Rl2", "Varibad", "check_agent"]
