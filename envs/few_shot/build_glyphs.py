"""Builds the file that `glyphs` reads, from the Noto fonts: python -m metarl.envs.few_shot.build_glyphs.

1,623 letters, as many as Omniglot has, are taken from the scripts one at a time, in turn, until there are
enough; a letter that looks like one taken before is passed over. Each is drawn by the same 20 writers, every
one of whom follows one of the shapes that the fonts give it. The same seed, fonts and versions of Pillow and
scikit-image give the same file.
"""

import argparse
import io
import lzma
import math
import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from metarl import ConfigError
from metarl.checkpoint import write_atomically

from .handwriting import PIXELS, PLAIN, Stroke, Writer, draw, strokes, writer

CLASSES = 1623
WRITERS = 20
SEED = 0
SIZE = 200  # of the print that strokes are found in, pixels an em
STRENGTH = 0.88  # of the writers; with it the nearest neighbour in pixels is right as often as in Omniglot
ALIKE = 0.93  # cosine of two blurred drawings from which on they are one shape
STYLES = ("Regular", "Light", "CondensedLight", "ExtraCondensedLight", "Thin")
FILE = re.compile(rf"Noto(?:Sans|Serif)([A-Za-z]*)-({'|'.join(STYLES)})\.ttf")
# Noto Sans and Noto Serif, without a script's name, hold three scripts; their letters of today are taken.
EUROPEAN = {"Latin": range(0x41, 0x180), "Greek": range(0x391, 0x3CA), "Cyrillic": range(0x410, 0x450)}
# Too intricate for 28 x 28 pixels, or made to be joined.
LEFT_OUT = {"Anatolian Hieroglyphs", "Cuneiform", "Duployan", "Egyptian Hieroglyphs", "Tangut"}
VARIANT = re.compile(" WITH |TURNED|SMALL CAPITAL")  # names of letters that are another with something to it
ABOUT = """\
The pictures in glyphs.npz.xz were made from the fonts below, and from no others, by build_glyphs.py.
The letterforms are real, the hands are simulated.
The fonts are under the SIL Open Font License 1.1, which is in OFL.txt, and so are the pictures.

file, version, copyright
"""


class Letter(NamedTuple):
    """A letter and the font files that have it, the plainest first."""

    script: str
    character: str
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        return f"{self.script}/U+{ord(self.character):04X}"


class Glyphs(NamedTuple):
    """What is built: pictures [C, 20, 28, 28] of letters."""

    pixels: NDArray[np.uint8]
    letters: list[Letter]


def build(folder: Path, classes: int, seed: int = SEED, strength: float = STRENGTH) -> Glyphs:
    """Choose letters from a folder with Noto fonts, and draw them."""
    if classes < 1:
        raise ConfigError(f"classes is {classes}; allowed: 1 or more")
    rng = default_rng(seed)
    hands = [writer(rng, strength) for _ in range(WRITERS)]
    letters = chosen(alphabets(folder), classes, rng)
    # A generator for each letter: it is drawn the same whatever the others are.
    drawn = [written(letter, hands, default_rng([seed, ord(letter.character)])) for letter in letters]
    return Glyphs(np.stack(drawn), letters)


def alphabets(folder: Path) -> dict[str, list[Letter]]:
    """The letters of each script that has a font in the folder, without accents and the like."""
    files: dict[tuple[str, str], list[Path]] = {}  # by script and character
    for path in _fonts(folder):
        for script, character in _letters(path):
            files.setdefault((script, character), []).append(path)
    scripts: dict[str, list[Letter]] = {}
    for (script, character), paths in sorted(files.items()):
        scripts.setdefault(script, []).append(Letter(script, character, tuple(paths)))
    return scripts


def _fonts(folder: Path) -> list[Path]:
    """The Noto fonts of a folder in the styles that are used, the plainest first."""
    require()
    found = [
        (STYLES.index(match[2]), path)
        for path in folder.glob("Noto*.ttf")
        if (match := FILE.match(path.name))
    ]
    if not found:
        raise ConfigError(
            f"fonts is {str(folder)!r}, where no Noto fonts are; "
            "Debian has them in fonts-noto-core and fonts-noto-extra"
        )
    return [path for _, path in sorted(found)]


def require() -> None:
    """ConfigError where a package is missing that only building needs."""
    for module, package in (("fontTools", "fonttools"), ("skimage", "scikit-image")):
        if find_spec(module) is None:
            raise ConfigError(
                f'building glyphs needs {package}, which is not installed; pip install "metarl-suite[glyphs]"'
            )


def _letters(path: Path) -> Iterator[tuple[str, str]]:
    """Script and character of the letters that a font is for."""
    from fontTools import unicodedata as scripts
    from fontTools.ttLib import TTFont

    match = FILE.match(path.name)
    own = match[1].lower() if match else ""
    with TTFont(path, lazy=True) as font:
        for code in sorted(font.getBestCmap()):
            script = scripts.script_name(scripts.script(chr(code)))
            is_own = code in EUROPEAN.get(script, ()) if not own else script.replace(" ", "").lower() == own
            if is_own and script not in LEFT_OUT and _is_plain(chr(code)):
                yield script, chr(code)


def _is_plain(character: str) -> bool:
    """Whether it is a letter, and not one made of another."""
    is_letter = unicodedata.category(character) in ("Lo", "Lu", "Ll")
    derived = unicodedata.decomposition(character) or VARIANT.search(unicodedata.name(character, ""))
    return is_letter and not derived


def chosen(scripts: dict[str, list[Letter]], classes: int, rng: Generator) -> list[Letter]:
    """One letter of each script at a time, unlike all before, until there are so many; sorted by script."""
    queues = {name: [letters[i] for i in rng.permutation(len(letters))] for name, letters in scripts.items()}
    taken: list[Letter] = []
    looks = np.zeros((classes, PIXELS**2))
    while any(queues.values()) and len(taken) < classes:
        for queue in queues.values():
            letter, look = _next_unlike(queue, looks)
            if letter and len(taken) < classes:
                looks[len(taken)] = look
                taken.append(letter)
    if len(taken) < classes:
        raise ConfigError(f"classes is {classes}, but these fonts have only {len(taken)} letters that differ")
    return sorted(taken)


def _next_unlike(
    queue: list[Letter], looks: NDArray[np.float64]
) -> tuple[Letter | None, NDArray[np.float64]]:
    """Take letters off a queue up to the first that is unlike all looks [C, 784]; it, and how it looks."""
    while queue:
        letter = queue.pop(0)
        look = _look(letter)
        if look.any() and (looks @ look).max() < ALIKE:
            return letter, look
    return None, np.zeros(looks.shape[1])


def _look(letter: Letter) -> NDArray[np.float64]:
    """A letter drawn plainly and blurred, as a vector of length 1; of zeros where its fonts draw nothing."""
    shape = next(shapes_of(letter), None)
    if shape is None:
        return np.zeros(PIXELS**2)
    plain = Image.fromarray(draw(shape, PLAIN, default_rng(0)))
    blurred = np.asarray(plain.filter(ImageFilter.GaussianBlur(1.2)), dtype=np.float64).ravel()
    return blurred / np.linalg.norm(blurred)


def shapes_of(letter: Letter) -> Iterator[list[Stroke]]:
    """The strokes of a letter in each of its fonts."""
    for path in letter.files:
        printed = _printed(path, letter.character)
        if printed and (found := strokes(printed)):
            yield found


def _printed(path: Path, character: str) -> Image.Image | None:
    """A character as a font has it, cut out; nothing where that is empty, a hairline or a banner."""
    font = _font(path)
    left, top, right, bottom = map(math.floor, font.getbbox(character))
    image = Image.new("L", (right - left + 2, bottom - top + 2))
    ImageDraw.Draw(image).text((1 - left, 1 - top), character, fill=255, font=font)
    box = image.getbbox()
    small, large = sorted((box[2] - box[0], box[3] - box[1])) if box else (0, 0)
    return image.crop(box) if small >= 8 and large <= 4 * SIZE else None


@cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, SIZE, layout_engine=ImageFont.Layout.BASIC)


def written(letter: Letter, hands: list[Writer], rng: Generator) -> NDArray[np.uint8]:
    """A letter by each writer, in one of its shapes, [writers, 28, 28]."""
    shapes = list(shapes_of(letter))
    return np.stack([draw(shapes[rng.integers(len(shapes))], hand, rng) for hand in hands])


def encoded(built: Glyphs) -> bytes:
    """What `glyphs.decoded` reads."""
    levels = np.round(built.pixels / 17).astype(np.uint8)
    content = io.BytesIO()
    np.savez(content, pixels=levels[..., ::2] << 4 | levels[..., 1::2], names=[x.name for x in built.letters])
    return lzma.compress(content.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def credits(letters: list[Letter]) -> str:
    """The list of the fonts that letters were drawn from."""
    from fontTools.ttLib import TTFont

    lines = []
    for path in sorted({path for letter in letters for path in letter.files}):
        with TTFont(path, lazy=True) as font:
            copyright, version = (str(font["name"].getDebugName(number)) for number in (0, 5))
        lines.append(f"{path.name}, {version.partition(';')[0].removeprefix('Version ')}, {copyright}\n")
    return ABOUT + "".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Build the file and, beside it, FONTS.txt."""
    parser = argparse.ArgumentParser(prog="python -m metarl.envs.few_shot.build_glyphs", description=__doc__)
    parser.add_argument("--fonts", type=Path, required=True, help="folder with the Noto fonts")
    parser.add_argument("--out", type=Path, required=True, help="file to write, glyphs.npz.xz")
    parser.add_argument("--classes", type=int, default=CLASSES, help="letters (default: %(default)s)")
    asked = parser.parse_args(arguments)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        built = build(asked.fonts, asked.classes)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    content = encoded(built)
    write_atomically(asked.out, content)
    write_atomically(asked.out.parent / "FONTS.txt", credits(built.letters))
    scripts = {letter.script for letter in built.letters}
    print(f"{len(built.letters)} letters of {len(scripts)} scripts, {len(content) / 1e6:.2f} MB: {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
