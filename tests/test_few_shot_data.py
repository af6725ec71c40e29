"""Omniglot and a user's own folders: layouts, splits, what a picture becomes, and what is refused."""

import hashlib
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from metarl import ConfigError

source: Any = import_module("metarl.envs.few_shot.omniglot")
files: Any = import_module("metarl.envs.few_shot.files")
folders: Any = import_module("metarl.envs.few_shot.folders")
turned: Any = import_module("metarl.envs.few_shot.images").turned
omniglot, omniglot_parts, image_folder = source.omniglot, source.omniglot_parts, folders.image_folder

REAL = Path(__file__).parents[2] / "shared" / "data" / source.PACKED
HALVES = {"images_background": {"Greek": 3, "N_Ko": 2}, "images_evaluation": {"Tengwar": 3}}
SPLIT = "train: {Greek: [1, 3]}\nvalidation: {N_Ko: [1, 2], Tengwar: [1, 1]}\ntest: {Tengwar: [2, 3]}\n"


def drawing(seed: int) -> Image.Image:
    """Black strokes on white, one bit a pixel, as Omniglot's."""
    image, rng = Image.new("1", (105, 105), 1), np.random.RandomState(seed)
    ImageDraw.Draw(image).line(rng.randint(10, 95, 8).tolist(), fill=0, width=4)
    return image


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three alphabets in Omniglot's layout, as folders."""
    root, seed = tmp_path_factory.mktemp("omniglot"), 0
    for half, alphabets in HALVES.items():
        for alphabet, characters in alphabets.items():
            for character in range(1, characters + 1):
                folder = root / half / alphabet / f"character{character:02}"
                folder.mkdir(parents=True)
                for writer in range(1, 21):
                    drawing(seed := seed + 1).save(folder / f"{character:04}_{writer:02}.png")
    return root


@pytest.fixture(scope="module")
def zipped(originals: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as zips, with what macOS leaves in them."""
    root = tmp_path_factory.mktemp("zips")
    for half in HALVES:
        with zipfile.ZipFile(root / f"{half}.zip", "w") as archive:
            for path in sorted(originals.glob(f"{half}/*/*/*.png"), reverse=True):
                archive.write(path, path.relative_to(originals))
            archive.writestr(f"__MACOSX/{half}/Greek/character01/._0001_01.png", b"not a picture")
            archive.writestr(f"{half}/.DS_Store", b"not a picture")
    return root


@pytest.fixture
def small(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three alphabets are all there is; the cache is new, and nothing can be fetched."""
    (tmp_path / "split.yaml").write_text(SPLIT)
    monkeypatch.setattr(source, "SPLIT", tmp_path / "split.yaml")
    monkeypatch.setattr(source, "URL", "http://127.0.0.1:9/")  # the port for what is discarded: closed
    monkeypatch.setenv("METARL_DATA", str(tmp_path / "cache"))
    return originals


@pytest.fixture
def served(small: Path, zipped: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The zips can be fetched; the names of those that were."""
    fetched: list[str] = []
    urlopen = files.urlopen

    def counted(url: str, timeout: float) -> Any:
        fetched.append(Path(urlsplit(url).path).name)
        return urlopen(url, timeout=timeout)

    sums = {half: hashlib.md5((zipped / f"{half}.zip").read_bytes()).hexdigest() for half in HALVES}
    monkeypatch.setattr(source, "HALVES", sums)
    monkeypatch.setattr(source, "URL", f"{zipped.as_uri()}/")
    monkeypatch.setattr(files, "urlopen", counted)
    return fetched


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for part in a:
        assert torch.equal(a[part].pixels, b[part].pixels)
        assert torch.equal(a[part].available, b[part].available)
        assert (a[part].names, a[part].groups) == (b[part].names, b[part].groups)


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob("cache/omniglot/*"))


def test_omniglot_is_split_by_characters(small: Path) -> None:
    parts = omniglot_parts(small)
    assert parts["train"].names == ("Greek/character01", "Greek/character02", "Greek/character03")
    assert parts["validation"].groups == ("N_Ko", "N_Ko", "Tengwar")
    assert parts["test"].names == ("Tengwar/character02", "Tengwar/character03")
    assert parts["test"].pixels.shape == (2, 20, 1, 28, 28)
    assert parts["test"].pixels.dtype == torch.uint8
    assert parts["train"].available.tolist() == [20, 20, 20]
    assert list(omniglot(small)) == ["train", "test"]
    assert_same(omniglot(small), {split: parts[split] for split in ("train", "test")})


def test_drawings_are_in_the_order_of_their_files_and_their_ink_is_bright(small: Path) -> None:
    drawings = omniglot(small)["train"].pixels[1, :, 0].float()  # Greek/character02: the seeds 21 to 40
    for shown, seed in zip(drawings, range(21, 41), strict=True):
        ink = 255 * (1 - torch.from_numpy(np.array(drawing(seed))).float())
        # A pixel of 28 is 3.75 of 105; Lanczos overshoots a little, so the means nearly agree.
        assert float(shown.mean()) == pytest.approx(float(ink.mean()), rel=0.15)
        coarse = torch.nn.functional.interpolate(ink[None, None], (28, 28), mode="area")[0, 0]
        assert float(torch.corrcoef(torch.stack([shown.flatten(), coarse.flatten()]))[0, 1]) > 0.97


def test_folders_zips_a_mixture_and_the_packed_file_hold_the_same(
    small: Path, zipped: Path, served: list[str], tmp_path: Path
) -> None:
    from_folders = omniglot_parts(str(small))
    assert_same(omniglot_parts(zipped), from_folders)
    mixed = tmp_path / "mixed"
    shutil.copytree(small / "images_background", mixed / "images_background")
    shutil.copy(zipped / "images_evaluation.zip", mixed)
    assert_same(omniglot_parts(mixed), from_folders)
    assert_same(omniglot_parts(), from_folders)  # fetches and packs
    packed = tmp_path / "cache" / "omniglot"
    assert_same(omniglot_parts(packed), from_folders)
    assert_same(omniglot_parts(packed / source.PACKED), from_folders)


def test_omniglot_is_fetched_once(served: list[str], tmp_path: Path) -> None:
    first = omniglot()
    assert served == ["images_background.zip", "images_evaluation.zip"]
    assert cached(tmp_path) == ["images_background.zip", "images_evaluation.zip", source.PACKED]
    for zipped in tmp_path.glob("cache/omniglot/*.zip"):
        zipped.unlink()  # the packed file is enough
    assert_same(omniglot(), first)
    assert len(served) == 2


def test_nothing_is_shown_where_there_is_no_terminal(
    served: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    omniglot()
    assert capsys.readouterr() == ("", "")


def refused(call: Callable[[], object]) -> str:
    """The one line of the error."""
    with pytest.raises(ConfigError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_wrong_checksum_leaves_nothing_behind(
    served: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = source.HALVES["images_background"]
    monkeypatch.setitem(source.HALVES, "images_background", "0" * 32)
    message = refused(omniglot)
    assert f"images_background.zip came with the md5 {found}, not {'0' * 32}, " in message
    assert "root may name a copy" in message
    assert cached(tmp_path) == []


def test_a_download_that_breaks_off_leaves_nothing_behind_and_can_be_repeated(
    served: list[str], zipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = omniglot(zipped)
    broken = tmp_path / "broken"
    shutil.copytree(zipped, broken)
    content = (broken / "images_evaluation.zip").read_bytes()
    (broken / "images_evaluation.zip").write_bytes(content[: len(content) // 2])
    with monkeypatch.context() as patch:
        patch.setattr(source, "URL", f"{broken.as_uri()}/")
        assert f"{len(content) // 2} bytes" in refused(omniglot)
    assert cached(tmp_path) == ["images_background.zip"]
    assert_same(omniglot(), whole)
    assert served == ["images_background.zip", "images_evaluation.zip", "images_evaluation.zip"]


def test_a_connection_lost_on_the_way_leaves_nothing_behind(
    served: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*args: object) -> bytes:
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(files, "_read_all", lost)
    assert "images_background.zip could not be fetched (Connection reset by peer)" in refused(omniglot)
    assert cached(tmp_path) == []


def test_without_a_network_the_error_says_what_to_do(small: Path, tmp_path: Path) -> None:
    message = refused(omniglot)
    assert message.startswith("http://127.0.0.1:9/images_background.zip could not be fetched (")
    assert "root may name a copy, a folder with images_background, images_evaluation" in message
    assert source.PACKED in message
    assert cached(tmp_path) == []


def test_a_cache_that_cannot_be_written(
    served: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METARL_DATA", str(tmp_path / "file"))
    assert "cannot be written (Not a directory); METARL_DATA may name another folder" in refused(omniglot)


def test_the_cache_is_in_the_users_home_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("METARL_DATA", "")
    assert files.cache("omniglot") == Path("/home/someone/.cache/metarl/omniglot")
    monkeypatch.setenv("METARL_DATA", "~/data")
    assert files.cache("omniglot") == Path("/home/someone/data/omniglot")


def test_copies_that_are_no_omniglot(small: Path, zipped: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert f"root {missing} has no images_background; allowed: a folder with" in refused(
        lambda: omniglot(missing)
    )

    copy = tmp_path / "copy"
    shutil.copytree(small, copy)
    (copy / "images_evaluation/Tengwar/character03/0003_20.png").unlink()
    assert "has 19 drawings of Tengwar/character03; allowed: 20" in refused(lambda: omniglot(copy))
    shutil.rmtree(copy / "images_evaluation/Tengwar/character03")
    assert f"{copy} lacks 1 of Omniglot's characters, such as Tengwar/character03" == refused(
        lambda: omniglot(copy)
    )
    bad = copy / "images_background/Greek/character01/0001_07.png"
    bad.write_bytes(bad.read_bytes()[:90])
    assert f"{bad} cannot be read" in refused(lambda: omniglot(copy))

    (copy / "images_background.zip").write_bytes((zipped / "images_background.zip").read_bytes()[:1000])
    shutil.rmtree(copy / "images_background")
    assert f"{copy / 'images_background.zip'} cannot be read (BadZipFile" in refused(lambda: omniglot(copy))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"names": np.array(["Greek/character01"])}, "cannot be read (KeyError: 'images"),
        ({"names": np.array([None]), "images": np.zeros(1, np.uint8)}, "cannot be read (ValueError"),
        (
            {"names": np.array(["a"]), "images": np.zeros((1, 20, 28, 28))},
            "has images float64 [1, 20, 28, 28]",
        ),
        (
            {"names": np.array(["a"]), "images": np.zeros((2, 20, 28, 28), np.uint8)},
            "allowed: uint8 [1, 20, 28",
        ),
    ],
)
def test_packed_files_that_are_none(arrays: dict[str, Any], reason: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **arrays)
    assert reason in refused(lambda: omniglot(tmp_path / "some.npz"))


def test_the_split_has_the_published_numbers_of_characters() -> None:
    split = source._split()
    assert {part: len(names) for part, names in split.items()} == {
        "train": 1028,
        "validation": 172,
        "test": 423,
    }
    assert len({name for names in split.values() for name in names}) == 1623
    alphabets = {part: {name.partition("/")[0] for name in names} for part, names in split.items()}
    assert {part: len(names) for part, names in alphabets.items()} == {
        "train": 33,
        "validation": 5,
        "test": 13,
    }
    assert alphabets["train"] & alphabets["test"] == {"Gurmukhi"}


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    """Omniglot itself."""
    if not REAL.is_file():
        pytest.skip(f"Omniglot is not in {REAL}")
    return dict(omniglot_parts(REAL))


def test_all_of_omniglot_is_there(real: dict[str, Any]) -> None:
    assert {part: len(images.pixels) for part, images in real.items()} == {
        "train": 1028,
        "validation": 172,
        "test": 423,
    }
    with np.load(REAL) as packed:
        names, drawn = packed["names"].tolist(), torch.from_numpy(packed["images"])
    assert {name for images in real.values() for name in images.names} == set(names)
    for images in real.values():
        for c in range(0, len(images.names), 20):
            assert torch.equal(images.pixels[c, :, 0], drawn[names.index(images.names[c])])


def test_nearest_pixels_do_as_well_as_measured_before(real: dict[str, Any]) -> None:
    """5-way 1-shot, a character turned by 90° being another: 44.3 %. Without turning it is 42.4 %."""
    pixels = turned(real["test"]).pixels.flatten(2).float()
    rng = torch.Generator().manual_seed(0)
    correct = []
    for _ in range(1000):
        classes = torch.randperm(len(pixels), generator=rng)[:5, None]
        drawings = pixels[classes, torch.randperm(20, generator=rng)[:16]]  # [5, 16, 784]
        nearest = torch.cdist(drawings[:, 1:].flatten(0, 1), drawings[:, 0]).argmin(-1).view(5, 15)
        correct.append((nearest == torch.arange(5)[:, None]).float().mean())
    assert float(torch.stack(correct).mean()) == pytest.approx(0.443, abs=0.015)


def paint(
    path: Path, size: tuple[int, int] = (12, 12), colour: Any = (200, 100, 50), mode: str = "RGB"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def test_folders_are_classes_of_different_sizes(tmp_path: Path) -> None:
    kinds = ("png", "PNG", "jpg", "jpeg", "bmp", "webp")
    for number, name in enumerate(["ant", "bee", "cat", "dog", "eel"], start=2):
        for i in range(number):
            paint(tmp_path / name / f"{i}.{kinds[i]}", (10 + i, 20), (10 * number, 10 * i, 200))
    (tmp_path / "ant" / "notes.txt").write_text("no picture")
    (tmp_path / "readme.txt").write_text("no class")
    paint(tmp_path / ".hidden" / "a.png")
    splits = image_folder(tmp_path, size=8)
    assert [len(images.names) for images in splits.values()] == [4, 1]
    assert sorted(n for images in splits.values() for n in images.names) == [
        "ant",
        "bee",
        "cat",
        "dog",
        "eel",
    ]
    for images in splits.values():
        largest = int(images.available.max())
        assert images.pixels.shape == (len(images.names), largest, 3, 8, 8)
        assert images.groups == ("",) * len(images.names)
        for name, count, pixels in zip(images.names, images.available.tolist(), images.pixels, strict=True):
            number = ["ant", "bee", "cat", "dog", "eel"].index(name) + 2
            assert count == number
            assert not pixels[count:].any()
            # files in the order of their names: 0.png, 1.PNG, ...; jpeg and webp are not exact
            wanted = torch.tensor([[10 * number, 10 * i, 200] for i in range(count)])
            assert float((pixels[:count].float().mean((2, 3)) - wanted).abs().max()) < 8


@pytest.mark.parametrize(("extra", "ood"), [((), None), (("val",), "val"), (("ood", "val"), "ood")])
def test_folders_may_be_split_by_the_user(extra: tuple[str, ...], ood: str | None, tmp_path: Path) -> None:
    for part in ("train", "test", *extra):
        for name in ("x", "y"):
            for i in range(2):
                paint(tmp_path / part / f"{part} {name}" / f"{i}.png")
    splits = image_folder(tmp_path, size=4, channels=1)
    wanted = {"train": "train", "test": "test"} | ({"ood": ood} if ood else {})
    assert {split: images.names for split, images in splits.items()} == {
        split: (f"{part} x", f"{part} y") for split, part in wanted.items()
    }
    assert splits["test"].pixels.shape == (2, 2, 1, 4, 4)
    assert splits["test"].pixels.unique().tolist() == [124]  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2


@given(st.integers(2, 400))
def test_a_fifth_of_the_classes_is_for_testing(n: int) -> None:
    classes = {f"class {c:03}": [Path(str(c))] for c in range(n)}
    splits = folders._divided(classes)
    assert splits == folders._divided(classes)
    assert len(splits["test"]) == max(1, round(n / 5))
    assert not splits["train"].keys() & splits["test"].keys()
    assert splits["train"] | splits["test"] == classes
    assert all(list(images) == sorted(images) for images in splits.values())


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.sampled_from([1, 3]))
def test_the_middle_of_a_picture_is_kept(width: int, height: int, size: int, channels: int) -> None:
    """A ramp along the longer side: the mean of its middle is the mean of all, and its ends are gone."""
    ramp = 4 * np.arange(max(width, height))
    shown = np.broadcast_to(ramp if width >= height else ramp[:, None], (height, width))
    with TemporaryDirectory() as name:
        for c in "ab":
            for i in range(2):
                (Path(name) / c).mkdir(exist_ok=True)
                Image.fromarray(shown.astype(np.uint8)).save(Path(name) / c / f"{i}.png")
        pixels = image_folder(name, size, channels)["train"].pixels
    assert pixels.shape == (1, 2, channels, size, size)
    assert float(pixels.float().mean()) == pytest.approx(ramp.mean(), abs=2)
    margin = 2 * abs(width - height)  # half of what is cut off, 4 a pixel
    assert int(pixels.min()) >= ramp.min() + margin - 4
    assert int(pixels.max()) <= ramp.max() - margin + 4


def one_picture(path: Path, **how: Any) -> torch.Tensor:
    """What a picture becomes, [channels, H, W]."""
    for copy in (path.parent / "other" / "0.png", path.parent / "other" / "1.png"):
        paint(copy)
    place = path.parent / "it"
    place.mkdir()
    for i in range(2):
        shutil.copy(path, place / f"{i}{path.suffix}")
    splits = image_folder(path.parent, **how)
    (pixels,) = (s.pixels[s.names.index("it"), 0] for s in splits.values() if "it" in s.names)
    return pixels


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", colour=(0, 0, 0, 0), mode="RGBA")
    assert one_picture(tmp_path / "a.png", size=3).unique().tolist() == [255]


def test_a_palette_with_transparency_is_read(tmp_path: Path) -> None:
    image = Image.new("P", (6, 6), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    assert one_picture(tmp_path / "a.png", size=2)[:, 0, 0].tolist() == [10, 20, 30]


def test_grey_of_16_bits_keeps_its_upper_8(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 6), 0x80FF, np.uint16)).save(tmp_path / "a.png")
    assert one_picture(tmp_path / "a.png", size=2, channels=1).unique().tolist() == [0x80]


def test_photographs_stand_upright(tmp_path: Path) -> None:
    image = Image.new("L", (10, 10))
    image.paste(255, (0, 0, 10, 5))
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: turned by 180 degrees
    image.save(tmp_path / "a.png", exif=exif)
    assert one_picture(tmp_path / "a.png", size=10, channels=1)[0, :, 0].tolist() == [0] * 5 + [255] * 5


def bomb() -> bytes:
    """The head of a PNG of 60000 x 60000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def test_folders_that_are_refused(tmp_path: Path) -> None:
    def message(root: Path, **how: Any) -> str:
        return refused(lambda: image_folder(root, **how))

    assert message(tmp_path / "gone") == (
        f"{tmp_path / 'gone'} cannot be read (FileNotFoundError: No such file or directory)"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} has no classes; allowed: a folder of pictures for each" == message(empty)
    for i in range(2):
        paint(empty / "a" / f"{i}.png")
    assert f"{empty} has 1 class; allowed: 2 or more" in message(empty)
    paint(empty / "b" / "0.png")
    assert f"class {empty / 'b'} has 1 pictures; allowed: 2 or more (png, " in message(empty)
    for content in (b"", b"no picture", (empty / "b" / "0.png").read_bytes()[:50], bomb()):
        (empty / "b" / "1.png").write_bytes(content)
        assert f"{empty / 'b' / '1.png'} cannot be read (" in message(empty)
    assert message(empty, size=0) == "size is 0; allowed: 1 or more"
    assert message(empty, channels=2) == "channels is 2; allowed: 1 (grey), 3 (colours)"
    (empty / "train").mkdir()
    (empty / "test").mkdir()
    assert f"{empty / 'train'} has no classes" in message(empty)
