"""Prototypical networks: Snell et al. 2017: p(k | x) ∝ exp(-‖f(x) - c_k‖²), c_k class k's mean f(x_i)."""

from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from metarl import STRICT

from .learner import Examples
from .metric import MetricConfig, MetricLearner


class Prototypical(MetricLearner):
    """The nearest class mean, in a space that is learned for it."""

    @dataclass(frozen=True, config=STRICT, kw_only=True)
    class Config(MetricConfig):
        """Settings of the embedding and of the meta-training."""

    def compare(self, support: Examples, query: Tensor) -> Tensor:
        """-‖z - c‖² but for ‖z‖², which all classes share: 2 c'z - ‖c‖², [N, Q, C]."""
        c = prototypes(support, self.classes)
        return 2 * query @ c.mT - c.square().sum(-1).unsqueeze(1)


def prototypes(support: Examples, classes: int) -> Tensor:
    """The mean embedding of each class, [N, C, D]; 0 of a class without examples."""
    member = F.one_hot(support.y, classes).to(support.x.dtype)  # [N, S, C]
    return member.mT @ support.x / member.sum(1).clamp(min=1).unsqueeze(-1)
