"""The letters that come with metarl: what they are, how hard they are, and how they were made."""

import sys
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random import RandomState, default_rng
from PIL import Image
from torch import Tensor

from metarl import ConfigError, Split

build_glyphs: Any = import_module("metarl.envs.few_shot.build_glyphs")
letters: Any = import_module("metarl.envs.few_shot.glyphs")
handwriting: Any = import_module("metarl.envs.few_shot.handwriting")
Glyphs, Letter, alphabets = build_glyphs.Glyphs, build_glyphs.Letter, build_glyphs.alphabets
build, chosen, encoded, main = (
    build_glyphs.build,
    build_glyphs.chosen,
    build_glyphs.encoded,
    build_glyphs.main,
)
decoded, glyphs, held_out = letters.decoded, letters.glyphs, letters.held_out
PLAIN, draw, strokes, writer = handwriting.PLAIN, handwriting.draw, handwriting.strokes, handwriting.writer

NOTO = Path("/usr/share/fonts/truetype/noto")
DATA = resources.files("metarl.envs.few_shot") / "glyphs"
CROSS = [np.array([[-0.5, 0.0], [0.5, 0.0]]), np.array([[0.0, -0.5], [0.0, 0.5]])]


@pytest.fixture
def three_scripts(tmp_path: Path) -> Path:
    """A folder with the fonts of three scripts; skips where they, or what reads them, are not installed."""
    pytest.importorskip("fontTools", reason="needs the extra `glyphs`")
    pytest.importorskip("skimage", reason="needs the extra `glyphs`")
    for script in ("Gothic", "Ogham", "Runic"):
        name = f"NotoSans{script}-Regular.ttf"
        if not (NOTO / name).exists():
            pytest.skip(f"needs the font {name}")
        (tmp_path / name).symlink_to(NOTO / name)
    return tmp_path


def nearest_neighbour(pixels: Tensor, way: int, episodes: int, rng: RandomState) -> float:
    """How often, of `way` classes with a picture each, the one nearest to a new picture is the right one."""
    order = rng.uniform(size=(episodes, len(pixels))).argsort(-1)[:, :way]
    picture = rng.uniform(size=(episodes, way, pixels.shape[1])).argsort(-1)[..., :2]
    classes, pictures = torch.from_numpy(order), torch.from_numpy(picture)
    known, new = (pixels[classes, pictures[..., i]].flatten(2) for i in (0, 1))
    return float((torch.cdist(new, known).argmin(-1) == torch.arange(way)).float().mean())


def test_there_are_as_many_letters_as_in_omniglot() -> None:
    splits: dict[Split, int] = {"train": 1200, "test": 423}
    assert glyphs().keys() == splits.keys()
    for split, classes in splits.items():
        images = glyphs()[split]
        assert images.pixels.shape == (classes, 20, 1, 28, 28)
        assert images.pixels.dtype == torch.uint8
        assert images.available.tolist() == [20] * classes
        assert len(images.names) == len(images.groups) == classes


def test_scripts_are_in_one_split_only() -> None:
    train, test = set(glyphs()["train"].groups), set(glyphs()["test"].groups)
    assert not train & test
    assert len(train | test) == 135
    assert {"Greek", "Runic", "Thai"} <= train | test


def test_names_say_script_and_code_point() -> None:
    names = [name for images in glyphs().values() for name in images.names]
    groups = [group for images in glyphs().values() for group in images.groups]
    assert len(set(names)) == 1623
    for name, group in zip(names, groups, strict=True):
        script, code = name.split("/U+")
        assert script == group
        assert chr(int(code, 16)).isalpha()


def test_ink_is_bright_in_sixteen_greys() -> None:
    pixels = glyphs()["test"].pixels
    assert sorted(set(pixels.flatten().tolist())) == list(range(0, 256, 17))
    assert (pixels.amax((-2, -1)) > 100).all(), "there is ink in each picture"
    assert pixels.float().mean() < 64, "and most of it is paper"


def test_no_two_pictures_of_a_letter_are_the_same() -> None:
    flat = glyphs()["test"].pixels.flatten(2).float()
    apart = torch.cdist(flat, flat) + 1e6 * torch.eye(20)
    assert (apart > 100).all()


def test_they_are_as_hard_as_omniglot() -> None:
    # Pixels find the nearest neighbour in 44.3 % of real Omniglot's 5-way 1-shot problems, measured alike.
    pixels = glyphs()["test"].pixels / 255
    accuracy = nearest_neighbour(pixels, 5, 2000, RandomState(1))
    assert 100 * accuracy == pytest.approx(43.3, abs=1.5)


def test_the_file_is_small_and_says_where_it_comes_from() -> None:
    assert len((DATA / "glyphs.npz.xz").read_bytes()) < 3e6
    fonts = (DATA / "FONTS.txt").read_text()
    assert "The letterforms are real, the hands are simulated." in fonts
    license = (DATA / "OFL.txt").read_text()
    assert "SIL OPEN FONT LICENSE" in license
    for line in fonts.split("\n\n")[1].splitlines()[1:]:
        file, _, copyright = line.split(", ")
        assert file.startswith(("NotoSans", "NotoSerif"))
        assert copyright.rstrip(".").lower() in license.lower()


def test_held_out_groups_add_up() -> None:
    # 5 + 4 is the only way to 9 among 5, 4, 3
    groups = ("a",) * 5 + ("b",) * 4 + ("c",) * 3
    assert held_out(groups, 9) == {"a", "b"}


def test_what_is_encoded_is_decoded() -> None:
    pixels = 17 * default_rng(0).integers(0, 16, (2, 3, 28, 28), dtype=np.uint8)
    letters = [Letter("Greek", "α", ()), Letter("Gothic", "\U00010330", ())]
    images = decoded(encoded(Glyphs(pixels, letters)))
    assert np.array_equal(images.pixels[:, :, 0].numpy(), pixels)
    assert images.names == ("Greek/U+03B1", "Gothic/U+10330")
    assert images.groups == ("Greek", "Gothic")


def test_a_letter_drawn_twice_from_one_seed_is_the_same() -> None:
    first, again, other = (draw(CROSS, writer(default_rng(1), 1.0), default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_plain_cross_is_drawn_where_it_is() -> None:
    # 0.84 of 28 pixels: from 2.24 to 25.76, through the middle, which is the corner of pixels 13 and 14
    picture = draw(CROSS, PLAIN, default_rng(0))
    inked = np.argwhere(picture > 60)
    assert inked.min() == 2
    assert inked.max() == 25
    assert set(np.minimum(abs(inked[:, 0] - 13.5), abs(inked[:, 1] - 13.5))) <= {0.5}


def test_the_strokes_of_a_printed_cross_are_its_four_arms() -> None:
    pytest.importorskip("skimage", reason="needs the extra `glyphs`")
    ink = np.zeros((90, 90), dtype=np.uint8)
    ink[40:50] = ink[:, 40:50] = 255
    arms = strokes(Image.fromarray(ink))
    points = np.concatenate(arms)
    assert len(arms) == 4
    assert np.abs(points).min(-1).max() < 0.02, "all lie on the axes"
    # thinning takes up to half of the ink's width, 5 of 90, off an end
    assert (np.abs([points.min(0), points.max(0)]) > 0.5 - 5.5 / 90).all()


def test_a_tiny_set_is_built_from_the_fonts(three_scripts: Path, tmp_path: Path) -> None:
    out = tmp_path / "built" / "glyphs.npz.xz"
    assert main(["--fonts", str(three_scripts), "--out", str(out), "--classes", "7"]) == 0
    images = decoded(out.read_bytes())
    assert images.groups == ("Gothic",) * 3 + ("Ogham",) * 2 + ("Runic",) * 2
    assert "NotoSansOgham-Regular.ttf, " in (out.parent / "FONTS.txt").read_text()
    again = build(three_scripts, 7)
    assert np.array_equal(np.round(again.pixels / 17) * 17, images.pixels[:, :, 0])


def test_fonts_with_too_few_letters_are_an_error(three_scripts: Path) -> None:
    with pytest.raises(ConfigError, match=r"classes is 200, but these fonts have only \d+ letters"):
        build(three_scripts, 200)
    with pytest.raises(ConfigError, match="classes is 0; allowed: 1 or more"):
        build(three_scripts, 0)


def test_a_shape_is_taken_once(three_scripts: Path) -> None:
    rune = alphabets(three_scripts)["Runic"][0]
    twin = rune._replace(script="Twin")
    with pytest.raises(ConfigError, match="only 1 letters that differ"):
        chosen({"Runic": [rune], "Twin": [twin]}, 2, default_rng(0))


def test_a_folder_without_fonts_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fontTools", reason="needs the extra `glyphs`")
    missing = tmp_path / "nowhere"
    assert main(["--fonts", str(missing), "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: fonts is '{missing}', where no Noto fonts are")
    assert said.count("\n") == 1


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_glyphs, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "metarl-suite\[glyphs\]"'):
        build(tmp_path, 1)


def test_reading_needs_none_of_what_building_does() -> None:
    source = Path(str(sys.modules["metarl.envs.few_shot.glyphs"].__file__)).read_text()
    assert "fontTools" not in source
    assert "skimage" not in source
