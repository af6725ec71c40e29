"""The house: imports point one way, the wheel holds the whole tree, and nothing is slept in twice."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("metarl", "envs", "agents", "experiments")
MAY_IMPORT = {
    "metarl": set(),
    "envs": {"metarl"},
    "agents": {"metarl"},
    "experiments": {"metarl", "metarl.envs", "metarl.agents"},
}
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> list[str]:
    """Absolute names of the modules that a file imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way_and_through_the_front_door(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] not in FOLDERS[1:], f"{name}: import it as metarl.{name}"
        if parts[0] != "metarl":
            continue
        if len(parts) > 1 and parts[1] in FOLDERS[1:]:
            assert name in MAY_IMPORT[folder], f"{folder} may not import {name}"
        else:
            assert "metarl" in MAY_IMPORT[folder], f"inside metarl imports are relative, not {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_imports_stay_within_their_folder(path: Path) -> None:
    depth = len(path.relative_to(ROOT).parts) - 1
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level <= depth, f"{path}: from {'.' * node.level}{node.module} leaves the folder"


def test_every_folder_with_code_is_listed_as_a_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    code = {path.parent.relative_to(ROOT).parts for path in FILES}
    wanted = {".".join(p if p[0] == "metarl" else ("metarl", *p)) for p in code}
    assert set(listed) == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_draws_from_a_global_generator(path: Path) -> None:
    draws = {"rand", "randn", "randint", "randperm", "normal", "multinomial", "bernoulli", "manual_seed"}
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = ast.unparse(node.func.value)
        if owner == "torch" and node.func.attr in draws:
            assert any(k.arg == "generator" for k in node.keywords), f"{path}:{node.lineno}"
        assert owner != "random", f"{path}:{node.lineno}"
        if owner == "np.random":
            assert node.func.attr in ("RandomState", "default_rng", "get_state", "set_state"), (
                f"{path}:{node.lineno}"
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300, f"{path}: does it still have one subject?"
