"""Few-shot learners: supervised problems on the same loop; a new one is one file and one line here."""

from typing import Any

from .anil import Anil
from .baselines import Bayes, LinearHead, NearestNeighbour, Ridge
from .fomaml import Fomaml
from .imaml import Imaml
from .joint import Joint
from .learned_momentum import LearnedMomentum
from .maml import Maml
from .matching import Matching
from .meta_sgd import MetaSgd
from .prototypical import Prototypical
from .relation import Relation
from .reptile import Reptile
from .siamese import Siamese

FEW_SHOT: dict[str, type[Any]] = {
    "maml": Maml,
    "fomaml": Fomaml,
    "reptile": Reptile,
    "anil": Anil,
    "meta_sgd": MetaSgd,
    "learned_momentum": LearnedMomentum,
    "imaml": Imaml,
    "siamese": Siamese,
    "matching": Matching,
    "prototypical": Prototypical,
    "relation": Relation,
    "joint": Joint,
    "nearest_neighbour": NearestNeighbour,
    "linear_head": LinearHead,
    "ridge": Ridge,
    "bayes": Bayes,
}

__all__ = [
    "FEW_SHOT",
    "Anil",
    "Bayes",
    "Fomaml",
    "Imaml",
    "Joint",
    "LearnedMomentum",
    "LinearHead",
    "Maml",
    "Matching",
    "MetaSgd",
    "NearestNeighbour",
    "Prototypical",
    "Relation",
    "Reptile",
    "Ridge",
    "Siamese",
]
