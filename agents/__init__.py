"""The agents; a new one is one file and one line here."""

from typing import Any

from .check import check_agent
from .maml_trpo import MamlTrpo
from .rl2 import Rl2
from .solvers import SOLVERS

AGENTS: dict[str, type[Any]] = {"maml_trpo": MamlTrpo, "rl2": Rl2}

__all__ = ["AGENTS", "SOLVERS", "MamlTrpo", "Rl2", "check_agent"]
