"""A training that begins with another run's agent: what it takes over, and what it does not."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl import ConfigError
from metarl.experiments import main
from metarl.runs import Run

config: Any = import_module("metarl.experiments.config")
training: Any = import_module("metarl.experiments.training")
sessions: Any = import_module("metarl.experiments.session")
SMALL = {
    "bandit": ("--meta_batch_size=4", "--rounds=3 x 1", "--evaluation.rounds=3 x 1", "--agent.hidden=8"),
    "navigation_sparse_pearl": (
        *("--meta_batch_size=2", "--rounds=[1,1]", "--evaluation.rounds=[1,1]", "--agent.hidden=[8]"),
        *("--agent.gradient_steps=3", "--agent.learning_starts=0", "--agent.encoder_layers=[8]"),
    ),
}


def begun(experiment: str, initial: Path | None, **changes: str) -> Any:
    """An untrained session that was given the agent of a run, or of none."""
    settings = dict(word[2:].split("=", 1) for word in SMALL[experiment])
    settings |= {"iterations": "2", "initial": str(initial) if initial else "null"}
    session = sessions.Session(config.build(config.override(config.read(experiment), settings | changes)))
    sessions.begin(session)
    return session


def trained(experiment: str, out: Path, initial: Path | None = None) -> Path:
    """A run of two iterations that was not judged."""
    session = begun(experiment, initial)
    training.learn(Run.create(out, config.to_yaml(session.experiment), overwrite=False), session)
    return out


@pytest.mark.parametrize("experiment", SMALL)
def test_it_begins_with_what_was_learned_and_not_with_what_is_of_the_training(
    experiment: str, tmp_path: Path
) -> None:
    _, old = sessions.restored(trained(experiment, tmp_path / "old"))
    session = begun(experiment, tmp_path / "old", seed="5")
    agent: Any = session.agent
    assert all(torch.equal(p, q) for p, q in zip(agent.parameters(), old.agent.parameters(), strict=True))
    state, theirs = agent.state_dict(), old.agent.state_dict()
    for name in ("normaliser.mean", "learner.scale.std"):
        assert name not in state or torch.equal(state[name], theirs[name])
    fresh = [k for k in state if any(word in k for word in ("exp_avg", "step_", "updates", "played", "size"))]
    assert len(fresh) > 3
    assert any(theirs[k].any() for k in fresh)
    assert not any(state[k].any() for k in fresh)
    assert session.iteration == session.env_steps == 0


def test_a_run_without_a_checkpoint_yet_resumes_from_the_same_beginning(tmp_path: Path) -> None:
    old = trained("bandit", tmp_path / "old")
    out = trained("bandit", tmp_path / "new", old)
    whole = sessions.restored(out)[1].agent.state_dict()
    for path in (out / "checkpoints").glob("*.pt"):
        path.unlink()
    assert main(["train", "--resume", str(out)]) == 0
    again = sessions.restored(out)[1].agent.state_dict()
    assert all(torch.equal(again[k], whole[k]) for k in whole)
    old.rename(tmp_path / "gone")  # which a trained run needs no more
    sessions.restored(out)


def test_agents_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    old = trained("bandit", tmp_path / "old")
    for experiment, changes in (
        ("bandit", {"agent.hidden": "16"}),
        ("bandit", {"family": "bandit/bernoulli-k10"}),
        ("navigation_sparse_pearl", {}),
    ):
        with pytest.raises(ConfigError, match=r"^initial is '.*old', a run of 'rl2'; allowed: one of '"):
            begun(experiment, old, **changes)


def test_an_agent_with_a_memory_for_each_action_goes_on_with_more_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [*SMALL["bandit"], "--agent.per_action=true", "--iterations=1", "--tensorboard=null"]
    old, new = tmp_path / "old", tmp_path / "new"
    assert main(["train", "bandit", *small, "--out", str(old)]) == 0
    more = ["--family=bandit/bernoulli-k10", "--initial", str(old), "--out", str(new)]
    assert main(["train", "bandit", *small, *more]) == 0
    assert sessions.restored(new)[1].agent.memory.things == 10
    capsys.readouterr()
    assert main(["evaluate", str(old), "--family", "bandit/bernoulli-k50", "--rounds", "3 x 1"]) == 0
    assert "bandit/bernoulli-k50" in capsys.readouterr().out


def test_a_refusal_leaves_no_run_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "bandit", "--initial=nowhere", "--out", str(tmp_path / "new")]) != 0
    wrong = "initial is 'nowhere'; allowed: a trained run's folder (run folder 'nowhere' does not exist)"
    assert capsys.readouterr().err == f"metarl: error: {wrong}\n"
    assert not (tmp_path / "new").exists()
