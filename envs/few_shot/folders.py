"""A user's own pictures, a folder per class."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from metarl import ConfigError, Split

from .files import picture, unreadable, watched
from .images import Images

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
MODES = {1: "L", 3: "RGB"}  # Pillow's name for grey and for colours
LEAST = 2  # pictures of a class: one to learn from, one to judge by

Classes = dict[str, list[Path]]  # the pictures of each class


def image_folder(root: str | Path, size: int = 84, channels: int = 3) -> dict[Split, Images]:
    """The pictures in the folders of `root`, each folder a class, [C, M, channels, size, size].

    Where `root` has train/ and test/, their folders are the classes; those of ood/ or else val/, where it has
    one, are out of distribution. Otherwise a fifth of the classes, and at least one, is for testing: always
    the same ones.

    A picture (png, jpg, jpeg, bmp, webp) is scaled until its shorter side has `size` pixels, and its middle
    is kept; what is transparent becomes white. channels is 3 for colours, 1 for grey. A class with fewer
    pictures than the largest is padded with zeros; `available` says how many it has.
    """
    root = Path(root).expanduser()
    if size < 1:
        raise ConfigError(f"size is {size}; allowed: 1 or more")
    if channels not in MODES:
        raise ConfigError(f"channels is {channels}; allowed: 1 (grey), 3 (colours)")
    return {split: _images(classes, size, channels) for split, classes in _splits(root).items()}


def _splits(root: Path) -> dict[Split, Classes]:
    """The classes of each split."""
    folders: dict[Split, Path] = {"train": root / "train", "test": root / "test"}
    if not all(folder.is_dir() for folder in folders.values()):
        classes = _classes(root)
        if len(classes) < 2:
            raise ConfigError(f"{root} has 1 class; allowed: 2 or more, or classes in train/ and test/")
        return _divided(classes)
    ood = next((root / name for name in ("ood", "val") if (root / name).is_dir()), None)
    if ood:
        folders["ood"] = ood
    return {split: _classes(folder) for split, folder in folders.items()}


def _divided(classes: Classes) -> dict[Split, Classes]:
    """A fifth of the classes, drawn once and for all, to test on, and the others to train on."""
    order = np.random.RandomState(1).permutation(len(classes))
    chosen = set(order[: max(1, round(len(classes) / 5))].tolist())
    train, test = Classes(), Classes()
    for c, (name, paths) in enumerate(classes.items()):
        (test if c in chosen else train)[name] = paths
    return {"train": train, "test": test}


def _classes(folder: Path) -> Classes:
    """The classes in a folder; ConfigError where there are none, or where one has too few pictures."""
    inside = {path.name: _listed(path) for path in _listed(folder) if path.is_dir()}
    classes = {name: [p for p in paths if p.suffix.lower() in SUFFIXES] for name, paths in inside.items()}
    if not classes:
        raise ConfigError(f"{folder} has no classes; allowed: a folder of pictures for each")
    for name, paths in classes.items():
        if len(paths) < LEAST:
            kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
            few = f"class {folder / name} has {len(paths)} pictures"
            raise ConfigError(f"{few}; allowed: {LEAST} or more ({kinds})")
    return classes


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without what is hidden."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:  # missing, a file, or not the user's
        raise unreadable(folder, error) from None


def _images(classes: Classes, size: int, channels: int) -> Images:
    """Read the pictures."""
    count = torch.tensor([len(paths) for paths in classes.values()])
    pixels = torch.zeros(len(classes), int(count.max()), channels, size, size, dtype=torch.uint8)
    places = [(c, m, path) for c, paths in enumerate(classes.values()) for m, path in enumerate(paths)]
    for c, m, path in watched(places, "Reading pictures"):
        pixels[c, m] = _fitted(picture(path, path), size, MODES[channels])
    return Images(pixels, count, tuple(classes), ("",) * len(classes))


def _fitted(image: Image.Image, size: int, mode: str) -> Tensor:
    """The middle of a picture, [channels, size, size]."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    square = np.array(ImageOps.fit(image.convert(mode), (size, size), Image.Resampling.LANCZOS))
    return torch.from_numpy(square.reshape(size, size, -1)).permute(2, 0, 1)
