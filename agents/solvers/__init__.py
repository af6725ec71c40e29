"""Reference solvers: agents that need no training, since they know the family's prior; by name.

A new one is one file and one line here. Names are unique over all kinds of families.
"""

from typing import Any

from .bandits import EpsilonGreedy, Gittins, Greedy, OptimisticThompson, Thompson, Ucb1
from .gridnavi import GridNaviBayesOptimal
from .mdps import Beb, MdpEpsilonGreedy, MdpGreedy, OptimisticPsrl, Psrl, Ucrl2
from .solver import Random, Solver

SOLVERS: dict[str, type[Solver[Any]]] = {
    "random": Random,
    "bayes_optimal": GridNaviBayesOptimal,
    "bandit_epsilon_greedy": EpsilonGreedy,
    "bandit_greedy": Greedy,
    "bandit_gittins": Gittins,
    "bandit_optimistic_thompson": OptimisticThompson,
    "bandit_thompson": Thompson,
    "bandit_ucb1": Ucb1,
    "mdp_beb": Beb,
    "mdp_epsilon_greedy": MdpEpsilonGreedy,
    "mdp_greedy": MdpGreedy,
    "mdp_optimistic_psrl": OptimisticPsrl,
    "mdp_psrl": Psrl,
    "mdp_ucrl2": Ucrl2,
}

__all__ = ["SOLVERS", "Random", "Solver"]
