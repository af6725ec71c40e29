"""The agents; a new one is one file and one line here."""

from typing import Any

from .check import check_agent
from .few_shot import FEW_SHOT, Maml, Prototypical
from .maml_trpo import MamlTrpo
from .multi_task_sac import MultiTaskSac
from .pearl import Pearl
from .recurrent_sac import RecurrentSac
from .rl2 import Rl2
from .solvers import SOLVERS
from .varibad import Varibad

AGENTS: dict[str, type[Any]] = {
    "maml_trpo": MamlTrpo,
    "rl2": Rl2,
    "varibad": Varibad,
    "pearl": Pearl,
    "recurrent_sac": RecurrentSac,
    "multi_task_sac": MultiTaskSac,
    **FEW_SHOT,
}

__all__ = [
    "AGENTS",
    "FEW_SHOT",
    "SOLVERS",
    "Maml",
    "MamlTrpo",
    "MultiTaskSac",
    "Pearl",
    "Prototypical",
    "RecurrentSac",
    "Rl2",
    "Varibad",
    "check_agent",
]
