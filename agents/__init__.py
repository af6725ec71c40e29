"""The agents; a new one is one file and one line here."""

from .check import check_agent
from .maml_trpo import MamlTrpo

AGENTS = {"maml_trpo": MamlTrpo}

__all__ = ["AGENTS", "MamlTrpo", "check_agent"]
