"""The examples of CONTRIBUTING.md run, keep the promises, and learn what they say."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metarl import device, generator
from metarl.agents import check_agent
from metarl.envs import check_family

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
FAMILY, AGENT, BOTH = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def examples() -> dict[str, Any]:
    """What the page has defined by the end of its second example."""
    names: dict[str, Any] = {"__name__": "examples"}
    for block in FAMILY, AGENT:
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    return names


def test_the_example_family_keeps_its_promises(examples: dict[str, Any]) -> None:
    check_family(examples["Drift"](device.resolve("cpu")))


def test_the_example_agent_keeps_its_promises(examples: dict[str, Any]) -> None:
    family = examples["Drift"](device.resolve("cpu"))
    agent = examples["ContextMean"](family.observation_space, family.action_space, generator(0))
    check_agent(agent, family)


def test_the_example_agent_learns_to_adapt_as_the_page_says(
    examples: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(BOTH, "CONTRIBUTING.md", "exec"), examples)
    first, second = (float(x) for x in re.findall(r"tensor\((-\S+)\)", capsys.readouterr().out))
    floor = examples["family"].bounds(examples["tasks"]).floor.mean().item()
    assert floor < 4 * first < 16 * second < 0
    said = re.search(r"# about (\S+) before it knows the task, (\S+) after", BOTH)
    assert said is not None
    assert (first, second) == pytest.approx([float(x) for x in said.groups()], abs=0.3)


@pytest.mark.parametrize("block", [FAMILY, AGENT, BOTH], ids=["family", "agent", "both"])
def test_the_examples_are_formatted(block: str) -> None:
    command = [sys.executable, "-m", "ruff", "format", "--check", "--line-length", "110", "-"]
    done = subprocess.run(command, input=block, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
