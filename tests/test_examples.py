"""Few-shot runs from the command line on: other protocols, the report's sections, the results' tables."""

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metarl import ConfigError
from metarl.agents import FEW_SHOT
from metarl.experiments import build, main, read, restored, shipped, start
from metarl.runs import Run

examples: Any = import_module("metarl.experiments.examples")
few_shot_table: Any = import_module("metarl.experiments.few_shot_table")
study: Any = import_module("metarl.experiments.study")
results: Any = import_module("metarl.experiments.results")

TINY = {"iterations": 2, "meta_batch_size": 2, "tensorboard": False}
ALSO = {"5-shot": {"rounds": [25, 10]}}


def tree(agent: str, family: Any = "glyphs/5-way", **settings: Any) -> dict[str, Any]:
    small = {"filters": 2} if "filters" in FEW_SHOT[agent].Config.__pydantic_fields__ else {}
    rounds = [5, 5] if family != "sinusoid/maml2017" else [5, 10]
    evaluation = {"rounds": rounds, "also": ALSO if rounds == [5, 5] else {}}
    whole = {"family": family, "agent": {"name": agent, **small}, "rounds": rounds, "evaluation": evaluation}
    return whole | TINY | settings


@pytest.fixture(autouse=True, scope="module")
def few_episodes() -> Iterator[None]:
    """A pool of 30 instead of 600: what is tested here does not need more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("metarl.envs.few_shot.episodes"), "POOL", 30)
        patch.setattr(import_module("metarl.envs.few_shot.regression"), "POOL", 30)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    kinds = {"maml": "glyphs/5-way", "prototypical": "glyphs/5-way", "meta_sgd": "sinusoid/maml2017"}
    return {kind: start(build(tree(kind, family)), folder / kind) for kind, family in kinds.items()}


def part(run: Run, name: str) -> str:
    found = re.search(rf'<section id="{name}">.*?</section>', run.report.read_text(), re.DOTALL)
    assert found, name
    return found[0]


def test_other_protocols_are_played_told_and_kept(runs: dict[str, Run]) -> None:
    run = runs["maml"]
    kept = json.loads(run.evaluation("also").read_text())
    assert (
        kept["5-shot"]["rounds"][-1]["mean"] != json.loads(run.evaluation("test").read_text())["rounds"][-1]
    )
    told = part(run, "also")
    assert "5-shot" in told
    assert "5-shot, inductive batch norm" in told
    assert "shuffled" not in told


def test_an_agent_may_be_judged_elsewhere(runs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(runs["prototypical"].folder)
    before = runs["prototypical"].evaluation("test").read_bytes()
    assert main(["evaluate", folder, "--family", "glyphs/20-way", "--rounds", "[20, 20]", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["family"], found["floor"]) == ("glyphs/20-way", pytest.approx(0.05))
    assert main(["evaluate", folder, "--rounds", "[25, 10]"]) == 0
    assert "prototypical on glyphs/5-way" in capsys.readouterr().out
    assert runs["prototypical"].evaluation("test").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--family", "glyphs/20-way", "--rounds", "[20, 20]"],
            "family is 'glyphs/20-way'; allowed: one whose inputs and answers",
        ),
        (["--family", "glyps/5-way"], "unknown family 'glyps/5-way'; allowed: "),
        (["--rounds", "[0, 5]"], "rounds.0 is 0; "),
        (["--rounds", "[5, "], "rounds is '[5, ', which cannot be read as a value"),
        (["--rounds", "[5]"], "rounds is [5]; allowed: 2 or more"),
        (
            ["--rounds", "[5, 5]", "--split", "ood"],
            "split is 'ood'; allowed with --family or --rounds: ",
        ),
        (["--rounds", "[7, 5]"], "rounds has 7 examples; allowed for 5 classes: multiples of 5"),
    ],
)
def test_what_cannot_be_played_elsewhere_is_refused_in_a_line(
    words: list[str], message: str, runs: dict[str, Run], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(runs["maml"].folder), *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said


def test_a_report_shows_an_episode_and_what_is_confused(runs: dict[str, Run]) -> None:
    for kind in ("maml", "prototypical"):
        assert "data:image/png;base64," in part(runs[kind], "episode")
        told = part(runs[kind], "confusions")
        assert 1 <= told.count("<li>") <= examples.PAIRS
        assert all(int(a) <= int(b) for a, b in re.findall(r"(\d+) of (\d+) times", told))


def test_a_report_draws_fits_and_steps_where_there_are_some(runs: dict[str, Run]) -> None:
    assert "<svg" in part(runs["meta_sgd"], "fits")
    assert 'id="fits"' not in runs["maml"].report.read_text()
    for kind in ("maml", "meta_sgd"):
        told = part(runs[kind], "steps")
        assert "median" in told
        assert "diverged tasks" in told
    assert "inductive batch norm" in part(runs["maml"], "steps")
    assert 'id="steps"' not in runs["prototypical"].report.read_text()


def test_no_steps_are_what_the_unadapted_network_earns(runs: dict[str, Run]) -> None:
    _, session = restored(runs["meta_sgd"].folder)
    agent: Any = session.agent
    trial = examples.played(
        import_module("metarl.experiments.material").Material(None, session, {}, {}, []), 7
    )
    x, _ = agent.examples(trial)[-1]
    begun = agent.begin(7, 5)
    still = agent.adapt_by(begun, trial.rounds[0], 0)
    assert torch.equal(agent.predict(still, x), agent.predict(begun, x))
    one, step = agent.adapt(begun, trial.rounds[0]), agent.adapt_by(begun, trial.rounds[0], 1)
    assert torch.equal(agent.predict(one, x), agent.predict(step, x))


def test_a_contact_sheet_frames_right_and_wrong_answers() -> None:
    x = torch.zeros(4, 1, 28, 28)
    support = (x[:2], torch.tensor([0, 1]), torch.tensor([0, 0]))
    query = (x, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 1]))
    picture = examples.sheet(support, query)
    colours = {tuple(c) for c in picture.reshape(-1, 3).tolist()}
    assert {examples.RIGHT, examples.WRONG} <= colours
    none_wrong = examples.sheet(support, (x, query[1], query[1]))
    assert examples.WRONG not in {tuple(c) for c in none_wrong.reshape(-1, 3).tolist()}


def test_ink_is_dark_on_paper_and_colours_stay() -> None:
    ink = np.asarray(examples.thumbnail(torch.ones(1, 28, 28)))
    assert ink.shape == (examples.CELL, examples.CELL, 3)
    assert not ink.any()
    red = torch.zeros(3, 16, 16)
    red[0] = 1
    assert np.asarray(examples.thumbnail(red))[5, 5].tolist() == [255, 0, 0]


def test_results_of_letters_are_a_table_of_protocols(tmp_path: Path, runs: dict[str, Run]) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    for kind in ("maml", "prototypical"):
        made = study.summary([build(tree(kind))], [runs[kind]]) | {"command": "it"}
        (folder / f"{kind}_few.json").write_text(json.dumps(made))
    page = results.write_results(folder).read_text()
    (row,) = re.findall(r"\| \[maml_few\].*", page)
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    found = json.loads((folder / "maml_few.json").read_text())
    assert cells[1:3] == ["maml", "1"]
    assert cells[4].startswith(f"{100 * found['rounds'][-1]['mean']:.1f} [")
    assert cells[5].startswith(f"{100 * found['also']['5-shot']['mean']:.1f} [")
    assert cells[4].endswith(")"), "the inductive accuracy is told, too"
    assert cells[6:] == ["", ""]
    assert not [*folder.glob("maml_few.svg")], "a table says it"


def told_study(way: int, agent: dict[str, Any] | None = None, **also: Any) -> dict[str, Any]:
    """A study of MAML, with these settings of the agent and tests besides."""
    return {
        "family": f"glyphs/{way}-way",
        "agent": "maml",
        "seeds": [0],
        "seconds": [60.0],
        "settings": {
            "family": f"glyphs/{way}-way",
            "agent": {"name": "maml", "anneal": way, **(agent or {})},
            "evaluation": {
                "rounds": [way, 75],
                "also": {name: {"rounds": [5, 75], "family": r["family"]} for name, r in also.items()},
            },
        },
        "rounds": [{"mean": 0.2, "ci95": [0.2, 0.2]}, {"mean": 0.9, "ci95": [0.89, 0.91]}],
        "controls": {},
        "also": also,
    }


def test_letters_that_were_learned_elsewhere_have_a_table_of_their_own() -> None:
    elsewhere = {"family": "omniglot/5-way", "mean": 0.8, "ci95": [0.79, 0.81], "controls": {}}
    told = few_shot_table.tables({"s": told_study(5, x=elsewhere)})
    assert "| [s](#s) | maml | 1 | 1.0 | 90.0 [89.0, 91.0] |  |  |  |" in told
    assert "| [s](#s) | maml | 1 | 1.0 | omniglot | 80.0 [79.0, 81.0] |  |" in told


def test_trainings_of_an_agent_stand_in_one_line_where_they_tell_different_things() -> None:
    elsewhere = {"family": "omniglot/5-way", "mean": 0.8, "ci95": [0.79, 0.81], "controls": {}}
    other = told_study(20, {"inner_lr": 0.1}, x=elsewhere)
    trained = {"a": told_study(5, x=elsewhere), "b": told_study(5), "b20": other}
    told = few_shot_table.tables(trained | {"c": told_study(20, x=elsewhere)})
    assert "| [b20](#b20) | maml | 1 | 1.0 |  |  | 90.0 [89.0, 91.0] |  |" in told
    assert (
        "| [a](#a), [c](#c) | maml | 1, 1 | 1.0, 1.0 | 90.0 [89.0, 91.0] |  | 90.0 [89.0, 91.0] |  |" in told
    )
    assert "| [b](#b) | maml | 1 | 1.0 | 90.0 [89.0, 91.0] |  |  |  |" in told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's pictures: six classes of stripes, in files."""
    for c in range(6):
        (tmp_path / "mine" / f"class_{c}").mkdir(parents=True)
        for k in range(4):
            stripes = np.zeros((20, 24), np.uint8)
            stripes[:, c :: 6 + k % 2] = 255
            Image.fromarray(stripes).save(tmp_path / "mine" / f"class_{c}" / f"{k}.png")
    return tmp_path


def test_a_users_own_pictures_are_a_family(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine.yaml").write_text(
        "family: {pictures: mine, way: 2, size: 16, colour: false}\n"
        "agent: {name: prototypical, filters: 2}\n"
        "iterations: 1\nmeta_batch_size: 2\nrounds: [2, 4]\ntensorboard: false\n"
        "evaluation: {rounds: [2, 4]}\n"
    )
    monkeypatch.chdir(folder.parent)
    assert main(["train", str(folder / "mine.yaml"), "--out", str(folder / "run"), "--family.way", "1"]) == 2
    # of six classes one is for tests: not enough for two ways
    assert main(["train", str(folder / "mine.yaml"), "--out", str(folder / "run")]) == 2
    for c in range(6, 14):
        (folder / "mine" / f"class_{c}").symlink_to(folder / "mine" / f"class_{c - 6}")
    train = ["train", str(folder / "mine.yaml"), "--out", str(folder / "run"), "--overwrite"]
    assert main(train) == 0
    found = json.loads((folder / "run" / "evaluation.json").read_text())
    assert (found["family"], found["tasks"]) == ("mine/2-way", 30)


def test_a_folder_that_is_not_there_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine.yaml").write_text("family: {pictures: nowhere}\nagent: {name: maml}\nrounds: [5, 5]\n")
    assert main(["train", str(folder / "mine.yaml"), "--out", str(folder / "run")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(folder / "nowhere") in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"agent": {"name": "rl2"}},
            r"^agent is 'rl2'; allowed for glyphs/5-way, which asks for answers: maml, ",
        ),
        (
            {"tell_task": True},
            r"^tell_task is true; allowed for glyphs/5-way, whose observations are no vectors",
        ),
    ],
)
def test_what_needs_vectors_refuses_pictures(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        start(build(tree("maml") | changes), tmp_path / "run")


def test_every_learner_ships_with_an_experiment() -> None:
    named = {read(name)["agent"]["name"] for name in shipped()}
    assert {*FEW_SHOT} <= named


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"rounds": [7, 75]}, r"^rounds has 7 examples; allowed for 5 classes: multiples of 5$"),
        ({"rounds": [75]}, r"^rounds is \[75\]; allowed: 2 or more"),
        ({"also": {"x": {"rounds": [5, 200]}}}, r"^rounds takes 41 pictures of each class; allowed: 20"),
        (
            {"also": {"x": {"rounds": [5, 5], "family": "glyphs/20-way"}}},
            r"^rounds has 5 examples; allowed for 20",
        ),
        (
            {"also": {"x": {"rounds": [20, 20], "family": "glyphs/20-way"}}},
            r"^family is 'glyphs/20-way'; allowed",
        ),
    ],
)
def test_how_it_will_be_judged_is_checked_before_it_trains(
    evaluation: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        start(build(tree("maml") | {"evaluation": {"rounds": [5, 5], **evaluation}}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^rounds has 7 examples"):
        start(build(tree("maml", rounds=[7, 5])), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("agent", "family", "message"),
    [
        ("nearest_neighbour", "sinusoid/maml2017", "allowed for NearestNeighbour: Discrete classes"),
        ("ridge", "glyphs/5-way", "allowed for Ridge: curves"),
        ("joint", "bandit/bernoulli-k5", "family is one without right answers"),
        (
            "pearl",
            "sinusoid/maml2017",
            "agent is 'pearl'; allowed for sinusoid/maml2017, which asks for answers",
        ),
    ],
)
def test_agents_refuse_what_they_cannot_answer(agent: str, family: str, message: str, tmp_path: Path) -> None:
    whole = {"family": family, "agent": {"name": agent}, "rounds": [5, 5], "evaluation": {"rounds": [5, 5]}}
    with pytest.raises(ConfigError, match=message):
        start(build(whole | TINY), tmp_path / "run")


def test_an_experiment_may_not_be_judged_in_a_family_that_is_not() -> None:
    with pytest.raises(ConfigError, match=r"^unknown evaluation\.also\.x\.family 'omniglt/5-way'; allowed: "):
        build(tree("maml", evaluation={"also": {"x": {"rounds": [5, 5], "family": "omniglt/5-way"}}}))
