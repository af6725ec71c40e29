"""The wheel and the sdist hold the whole tree, and the wheel works alone in an empty environment."""

import json
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, built through the sdist, from a copy that build cannot litter."""
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    tracked = ["pyproject.toml", "README.md", "LICENSE", "metarl", "envs", "agents", "experiments"]
    subprocess.run(["cp", "-r", *tracked, str(source)], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def tree() -> set[str]:
    """What belongs into the wheel, by its place there."""
    wanted = set()
    for folder in ("metarl", "envs", "agents", "experiments"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".typed", ".xz", ".txt"):
                name = path.relative_to(ROOT).as_posix()
                wanted.add(name if folder == "metarl" else f"metarl/{name}")
    return wanted


def test_the_wheel_holds_exactly_the_tree(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == tree()


def test_the_sdist_holds_everything_that_the_wheel_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = {name for name in tree() if name not in names and name.removeprefix("metarl/") not in names}
    assert not missing
    assert {"LICENSE", "README.md", "pyproject.toml"} <= names


def test_an_installed_wheel_lists_what_there_is(built: Path, tmp_path: Path) -> None:
    """The dependencies are lent by this environment through a .pth file; the package is the wheel's own."""
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True
    )
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    (site / "lent.pth").write_text(packages + "\n")
    where = subprocess.run(
        [str(python), "-c", "import metarl.envs; print(metarl.envs.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path) in where.stdout, "the checkout was imported, not the wheel"
    command = [str(tmp_path / "venv" / "bin" / "metarl"), "list", "--json"]
    listed = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout)
    assert "navigation/maml2017" in listed["families"]
    assert "maml_trpo" in listed["agents"]
    assert "quickstart" in listed["experiments"]
