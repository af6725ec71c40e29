"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_five_lines_reach_an_adaptation_curve(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(BLOCKS[0].replace("iterations=20", "iterations=2"), names)
    out = capsys.readouterr().out
    assert out.startswith("navigation/maml2017, test split, 40 tasks")
    assert out.count("adaptations") == 4
    statements = [line for line in BLOCKS[0].splitlines() if line and "import" not in line]
    assert len(statements) == 5


def test_the_gymnasium_example_runs() -> None:
    names: dict[str, object] = {}
    exec(BLOCKS[1], names)
    assert names["info"]


def test_every_family_is_in_the_table_and_every_link_leads_somewhere() -> None:
    from metarl.envs import FAMILIES

    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    for name in FAMILIES:
        assert any(f"`{name}`" in row for row in rows)
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
