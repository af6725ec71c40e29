"""Few-shot problems with right answers: curves, letters, pictures; a one-step episode is an example."""

from .episodes import Episodes
from .images import Images
from .pictures import (
    Glyphs5,
    Glyphs20,
    Omniglot5,
    Omniglot20,
    Pictures,
    PicturesConfig,
    is_pictures,
    pictures_config,
    pictures_family,
    pictures_tree,
)
from .regression import Linear, Regression, Sinusoid

__all__ = [
    "Episodes",
    "Glyphs5",
    "Glyphs20",
    "Images",
    "Linear",
    "Omniglot5",
    "Omniglot20",
    "Pictures",
    "PicturesConfig",
    "Regression",
    "Sinusoid",
    "is_pictures",
    "pictures_config",
    "pictures_family",
    "pictures_tree",
]
