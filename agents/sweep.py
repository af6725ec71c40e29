"""How a sample of a posterior may move through it while an episode explores: it turns around a middle.

A standard normal vector that is turned in a random plane is standard normal in every place, so that what
moves by it is a sample of the posterior at every step. It passes by many hypotheses where a held one tests
one.
"""

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class Course(NamedTuple):
    """Where exploring episodes are on their circles, and where a quarter of a turn takes them."""

    arm: Tensor  # from the middle, [N, E, Z]
    aside: Tensor  # the arm after a quarter of a turn; the arm itself where it is held

    def turned(self, angle: float) -> "Course":
        """After a turn by an angle in radians."""
        cos, sin = math.cos(angle), math.sin(angle)
        return Course(cos * self.arm + sin * self.aside, cos * self.aside - sin * self.arm)


def perpendicular(arm: Tensor, other: Tensor) -> Tensor:
    """The part of vectors [..., Z] at right angles to others, made as long as these."""
    along = F.normalize(arm, dim=-1)
    aside = other - (other * along).sum(-1, keepdim=True) * along
    return F.normalize(aside, dim=-1) * arm.norm(dim=-1, keepdim=True)
