"""The agents; a new one is one file and one line here."""

from .maml_trpo import MamlTrpo

AGENTS = {"maml_trpo": MamlTrpo}

__all__ = ["AGENTS", "MamlTrpo"]
