"""Pictures of many classes, as every loader gives them."""

from typing import NamedTuple

import torch
from torch import Tensor


class Images(NamedTuple):
    """C classes of up to M pictures each."""

    pixels: Tensor  # [C, M, channels, H, W] uint8; what is drawn is bright: ink is 255, paper 0
    available: Tensor  # [C] int64, how many of its M pictures a class has; those come first
    names: tuple[str, ...]  # what each class is called, "Greek/U+03B1"
    groups: tuple[str, ...]  # what it belongs to, its script or alphabet; "" where classes have no groups

    def pick(self, classes: list[int]) -> "Images":
        """Some of the classes, in that order."""
        places = torch.tensor(classes, dtype=torch.int64)
        names, groups = (tuple(x[c] for c in classes) for x in (self.names, self.groups))
        return Images(self.pixels[places], self.available[places], names, groups)


def turned(images: Images, quarters: int = 4) -> Images:
    """Each class upright and turned by 90°, 180° and 270°, as a class of its own: 4 C in all.

    As in Santoro et al. 2016 and Vinyals et al. 2016. Class c turned by r quarters has the number r C + c.
    """
    turns = range(quarters)
    return Images(
        torch.cat([images.pixels.rot90(r, (-2, -1)) for r in turns]),
        images.available.repeat(quarters),
        tuple(f"{name}, turned by {90 * r}°" if r else name for r in turns for name in images.names),
        images.groups * quarters,
    )
