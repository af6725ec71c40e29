"""Letters of 135 scripts by 20 writers, a set shaped like Omniglot (Lake et al. 2015) that comes with metarl.

The letterforms are real: they are those of the Noto fonts. The hands are simulated, by `build_glyphs`. What
is published was measured on Omniglot itself.
"""

import io
import lzma
from collections import Counter
from functools import cache
from importlib import resources

import numpy as np
import torch

from metarl import Split

from .images import Images

TEST_CLASSES = 423  # of 1,623; 1,200 are for training, as in most of the work on Omniglot


@cache
def glyphs() -> dict[Split, Images]:
    """1,200 letters to train on and 423 to test on, of scripts that are not among those to train on."""
    images = decoded((resources.files(__package__) / "glyphs" / "glyphs.npz.xz").read_bytes())
    test = held_out(images.groups, TEST_CLASSES)
    in_test = [group in test for group in images.groups]
    return {
        "train": images.pick([c for c, chosen in enumerate(in_test) if not chosen]),
        "test": images.pick([c for c, chosen in enumerate(in_test) if chosen]),
    }


def decoded(file: bytes) -> Images:
    """The pictures in a file that `build_glyphs` wrote: two pixels of 16 greys a byte, an .npz, .xz of it."""
    with np.load(io.BytesIO(lzma.decompress(file))) as content:
        packed, names = content["pixels"], tuple(str(name) for name in content["names"])
    # The first of two pixels is the upper half of their byte; the most ink, 15, is 15 * 17 = 255.
    two = np.arange(256, dtype=np.uint8)
    pixels = (np.stack([two >> 4, two & 15], -1) * np.uint8(17))[packed].reshape(*packed.shape[:-1], -1)
    count = torch.full((len(names),), pixels.shape[1])
    return Images(
        torch.from_numpy(pixels)[:, :, None], count, names, tuple(n.partition("/")[0] for n in names)
    )


def held_out(groups: tuple[str, ...], classes: int) -> set[str]:
    """Groups with exactly so many classes between them: the first such, in an order drawn once for all."""
    sizes = Counter(groups)
    order = np.random.RandomState(0).permutation(sorted(sizes))
    reached: dict[int, tuple[str, ...]] = {0: ()}  # for each number of classes, groups that add up to it
    for group in map(str, order):
        for total, members in sorted(reached.items()):
            reached.setdefault(total + sizes[group], (*members, group))
    return set(reached[classes])
