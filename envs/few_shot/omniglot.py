"""Omniglot, Lake et al. 2015, with the split by characters of Vinyals et al. 2016.

1,623 characters of 50 alphabets, each drawn once by 20 people. The pictures, of 105x105 pixels, are made
28x28 by Lanczos resampling.
"""

import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps

from metarl import ConfigError, Split, read_yaml

from .files import cache, fetch, keep, picture, unreadable, watched
from .images import Images

URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
HALVES = {  # the folders of the original, and the checksums of their zips
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
PACKED = "omniglot_28x28.npz"  # `images` uint8 [C, 20, 28, 28], ink is 255; `names` alphabet/character
SPLIT = Path(__file__).with_name("omniglot_split.yaml")
DRAWINGS, SIZE = 20, 28
PICTURES = "*/*/[!.]*.png"  # alphabet, character, drawing
LAYOUT = f"a folder with {', '.join(HALVES)} (folders or .zip), or {PACKED}"


def omniglot(root: str | Path | None = None) -> dict[Split, Images]:
    """1,028 characters to train on and 423 to test on, [C, 20, 1, 28, 28].

    `root` is a folder with the zips of the original, images_background.zip and images_evaluation.zip, or with
    what they hold, or a packed omniglot_28x28.npz. Without it, the zips are downloaded to the cache folder,
    $METARL_DATA or ~/.cache/metarl, and packed there: from then on it opens at once.
    """
    parts = omniglot_parts(root)
    return {"train": parts["train"], "test": parts["test"]}


def omniglot_parts(root: str | Path | None = None) -> dict[str, Images]:
    """The same, and the 172 characters that Vinyals et al. keep for "validation"."""
    path = _fetched() if root is None else Path(root).expanduser()
    names, drawn = _open(path)
    place = {name: c for c, name in enumerate(names)}
    wanted = _split()
    missing = [name for part in wanted.values() for name in part if name not in place]
    if missing:
        raise ConfigError(f"{path} lacks {len(missing)} of Omniglot's characters, such as {missing[0]}")
    return {part: _images(chosen, drawn[[place[n] for n in chosen]]) for part, chosen in wanted.items()}


def _split() -> dict[str, list[str]]:
    """The names of each part's characters."""
    return {
        part: [f"{name}/character{i:02}" for name, (a, b) in alphabets.items() for i in range(a, b + 1)]
        for part, alphabets in read_yaml(SPLIT).items()
    }


def _images(names: list[str], drawn: np.ndarray) -> Images:
    """Characters [C, 20, 28, 28] under their names."""
    groups = tuple(name.partition("/")[0] for name in names)
    count = torch.full((len(names),), DRAWINGS)
    return Images(torch.from_numpy(drawn)[:, :, None], count, tuple(names), groups)


def _fetched() -> Path:
    """The packed file in the cache, made first where it is not there."""
    folder = cache("omniglot")
    path = folder / PACKED
    if not path.is_file():
        for half, md5 in HALVES.items():
            if not _source(folder, half).exists():
                fetch(f"{URL}{half}.zip", folder / f"{half}.zip", md5, f"root may name a copy, {LAYOUT}")
        names, drawn = _read(folder)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, names=np.array(names), images=drawn)
        keep(path, buffer.getvalue())
    return path


def _open(path: Path) -> tuple[list[str], np.ndarray]:
    """All characters, by name and as [C, 20, 28, 28], from whatever layout there is."""
    packed = path / PACKED if path.is_dir() else path
    return _unpack(packed) if packed.is_file() else _read(path)


def _unpack(path: Path) -> tuple[list[str], np.ndarray]:
    """What a packed file holds."""
    try:
        with np.load(path) as archive:
            names, drawn = archive["names"].tolist(), archive["images"]
    except Exception as error:  # no zip, no such array, no numbers
        raise unreadable(path, error) from None
    if drawn.dtype != np.uint8 or drawn.shape != (len(names), DRAWINGS, SIZE, SIZE):
        shape = f"{drawn.dtype} {list(drawn.shape)}"
        raise ConfigError(f"{path} has images {shape}; allowed: uint8 [{len(names)}, 20, 28, 28]")
    return names, drawn


def _read(folder: Path) -> tuple[list[str], np.ndarray]:
    """What the original pictures show."""
    classes: dict[str, list[np.ndarray]] = {}
    for half in HALVES:
        source = _source(folder, half)
        for name, data in watched(_contents(source, half), f"Reading {half}"):
            shrunk = _shrunk(picture(io.BytesIO(data), source / name))
            classes.setdefault(name.rpartition("/")[0], []).append(shrunk)
    for name, drawings in classes.items():
        if len(drawings) != DRAWINGS:
            raise ConfigError(f"{folder} has {len(drawings)} drawings of {name}; allowed: {DRAWINGS}")
    drawn = np.array(list(classes.values()), np.uint8).reshape(len(classes), DRAWINGS, SIZE, SIZE)
    return list(classes), drawn


def _source(folder: Path, half: str) -> Path:
    """Where a half of the original lies: a folder or, where there is none, a zip."""
    return folder / half if (folder / half).is_dir() else folder / f"{half}.zip"


def _contents(source: Path, half: str) -> list[tuple[str, bytes]]:
    """The pictures in a folder or a zip, as (Alphabet/characterNN/file.png, what it holds), sorted."""
    if not source.exists():
        raise ConfigError(f"root {source.parent} has no {half}; allowed: {LAYOUT}")
    try:
        if source.is_dir():
            paths = source.glob(PICTURES)
            return sorted((path.relative_to(source).as_posix(), path.read_bytes()) for path in paths)
        with zipfile.ZipFile(source) as archive:
            names = [n for n in archive.namelist() if PurePosixPath(n).match(f"{half}/{PICTURES}")]
            return sorted((name.removeprefix(f"{half}/"), archive.read(name)) for name in names)
    except Exception as error:  # cut short, damaged, no zip, or not the user's
        raise unreadable(source, error) from None


def _shrunk(image: Image.Image) -> np.ndarray:
    """Black ink on white at any size -> [28, 28], ink is 255."""
    # Pillow would fall back on nearest neighbours for the original's pictures, which have one bit a pixel
    inverted = ImageOps.invert(image.convert("L"))
    return np.asarray(inverted.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
