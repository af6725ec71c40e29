"""The families of few-shot classification: letters that come along, Omniglot, a folder of your own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from metarl import STRICT, ConfigError, Split, checked

from .episodes import Episodes
from .folders import image_folder
from .glyphs import glyphs
from .images import Images, turned
from .omniglot import omniglot

SMALL = (1, 28, 28)
LETTERS = "real letters by simulated hands, {} classes of 20 pictures; tested on scripts never seen"
CHARACTERS = (
    "handwritten characters, {} classes of 20 pictures, turned ones being classes (Vinyals et al. 2016)"
)


class Glyphs(Episodes):
    """Letters of many scripts; out of distribution those of an episode are all of one script."""

    shape = SMALL
    way = 5

    def __init__(self, device: torch.device, way: int | None = None) -> None:
        self.way = way or self.way
        self.name, self.summary = f"glyphs/{self.way}-way", LETTERS.format(self.way)
        super().__init__(device)

    def load(self) -> dict[Split, Images]:
        """From the package."""
        return glyphs()


class Glyphs5(Glyphs):
    """5 classes."""

    name, summary, way = "glyphs/5-way", LETTERS.format(5), 5


class Glyphs20(Glyphs):
    """20 classes."""

    name, summary, way = "glyphs/20-way", LETTERS.format(20), 20


class Omniglot(Episodes):
    """Lake et al. 2015, the split by Vinyals et al. 2016, each character's four turns being classes.

    Out of distribution the characters of an episode are all of one alphabet, as in Lake et al.
    """

    shape = SMALL
    way = 5

    def __init__(self, device: torch.device, way: int | None = None, root: str | Path | None = None) -> None:
        self.way, self.root = way or self.way, root
        self.name, self.summary = f"omniglot/{self.way}-way", CHARACTERS.format(self.way)
        super().__init__(device)

    def load(self) -> dict[Split, Images]:
        """From a copy in `root`, or in the cache, or else from the network."""
        return {split: turned(images) for split, images in omniglot(self.root).items()}


class Omniglot5(Omniglot):
    """5 classes."""

    name = "omniglot/5-way"
    summary = (
        "handwritten characters, 5 classes of 20 pictures, turned ones being classes (Vinyals et al. 2016)"
    )
    way = 5


class Omniglot20(Omniglot):
    """20 classes."""

    name = "omniglot/20-way"
    summary = (
        "handwritten characters, 20 classes of 20 pictures, turned ones being classes (Vinyals et al. 2016)"
    )
    way = 20


KNOWN = ("glyphs", "omniglot")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class PicturesConfig:
    """Few-shot classification of your own pictures, a folder a class; or of known ones with any `way`."""

    pictures: str
    """The folder of classes, or of train/, test/ and perhaps ood/ or val/; or glyphs; or omniglot."""
    way: Annotated[int, Field(ge=2)] = 5
    """Classes of an episode."""
    root: str | None = None
    """Where a copy of Omniglot lies."""
    size: Annotated[int, Field(ge=16)] = 84
    """Height and width to which your pictures are scaled."""
    colour: bool = True
    """Whether your pictures have three channels, or one."""
    name: str = ""
    """What the family is called; none: after the folder."""

    @property
    def family_name(self) -> str:
        """What the family is called."""
        folder = self.pictures if self.pictures in KNOWN else Path(self.pictures).resolve().name
        return self.name or f"{folder}/{self.way}-way"


class Pictures(Episodes):
    """A user's folder; out of distribution are its ood/ or val/ classes, or else test's, upside down."""

    def __init__(self, config: PicturesConfig, device: torch.device) -> None:
        self.config, self.way = config, config.way
        channels = 3 if config.colour else 1
        self.name = config.family_name
        self.summary = f"your own pictures, {config.way} classes"
        self.shape = (channels, config.size, config.size)
        super().__init__(device)

    def load(self) -> dict[Split, Images]:
        """From the folder."""
        found = image_folder(self.config.pictures, self.config.size, self.shape[0])
        test = found["test"]
        upside_down = test._replace(pixels=test.pixels.rot90(2, (-2, -1)))
        return {**found, "ood": found.get("ood", upside_down)}


def is_pictures(family: object) -> bool:
    """Whether what stands where a family's name may stand describes pictures."""
    return isinstance(family, Mapping) and "pictures" in family


def pictures_tree(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with its paths made absolute; relative ones are from `folder`, where their file lies."""
    paths = {key: tree[key] for key in ("pictures", "root") if isinstance(tree.get(key), str)}
    known = paths.get("pictures") in KNOWN
    absolute = {key: str((folder / p).resolve()) for key, p in paths.items() if key == "root" or not known}
    return {**tree, **absolute}


def pictures_config(tree: Mapping[str, Any], prefix: str = "") -> PicturesConfig:
    """The checked configuration; ConfigError, in one line, for whatever is missing, unknown or impossible."""
    config = checked(PicturesConfig, tree, prefix)
    if config.root is not None and config.pictures != "omniglot":
        raise ConfigError(f"{prefix}root is {config.root!r}; allowed for omniglot alone")
    return config


def pictures_family(config: PicturesConfig, device: torch.device) -> Episodes:
    """The family that a configuration describes."""
    if config.pictures == "glyphs":
        return Glyphs(device, config.way)
    return Omniglot(device, config.way, config.root) if config.pictures in KNOWN else Pictures(config, device)
