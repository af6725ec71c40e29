"""Studies over seeds and the page of their results."""

import json
import os
import re
import shutil
import xml.etree.ElementTree as ET
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.experiments import build, read
from metarl.runs import Run

results, study = (import_module(f"metarl.experiments.{name}") for name in ("results", "study"))

TINY = {
    "iterations": "2",
    "meta_batch_size": "2",
    "rounds": "[2,2]",
    "evaluation.rounds": "[2,2,2]",
    "agent.hidden": "[4]",
    "agent.credit": "null",
    "checkpoint_every": "1",
    "tensorboard": "false",
}


def run_study(folder: Path, *changes: str, seeds: tuple[str, ...] = ("0", "1")) -> int:
    places = ["--out", str(folder / "runs"), "--results", str(folder / "results"), "--name", "tiny"]
    settings = [f"--{key}={value}" for key, value in TINY.items()]
    status: int = study.main(["quickstart", "--seeds", *seeds, *places, *settings, *changes])
    return status


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results" / "tiny.json").read_text())
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two seeds: do not touch."""
    folder = tmp_path_factory.mktemp("study")
    assert run_study(folder) == 0
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "study"))


# --- studies


def test_a_study_sums_up_its_runs(made: Path) -> None:
    found = result(made)
    runs = [Run.open(made / "runs" / f"seed_{seed}") for seed in (0, 1)]
    assert (found["family"], found["agent"], found["seeds"]) == ("navigation/maml2017", "maml_trpo", [0, 1])
    assert found["env_steps"] == [run.read_metrics()[-1]["env_steps"] for run in runs]
    assert found["seconds"] == [run.read_metrics()[-1]["seconds"] for run in runs]
    for part, split in ((found, "test"), (found["ood"], "ood")):
        each = [json.loads(run.evaluation(split).read_text()) for run in runs]
        assert (part["floor"], part["oracle"]) == (each[0]["floor"], each[0]["oracle"])
        assert len(part["rounds"]) == 3
        for k, r in enumerate(part["rounds"]):
            assert r["per_seed"] == pytest.approx([e["rounds"][k]["mean"] for e in each])
            assert r["mean"] == pytest.approx(np.mean(r["per_seed"]))
            assert r["ci95"][0] < r["mean"] < r["ci95"][1]
            together = np.mean([e["scores"][k] for e in each], 0)
            assert r["cvar5"] == pytest.approx(np.sort(together)[:2].mean())
        for name, control in part["controls"].items():
            assert control["mean"] == pytest.approx(np.mean([e["controls"][name]["mean"] for e in each]))
        assert part["controls"].keys() == {"shuffled", "wiped"}
        assert part["total"]["per_seed"] == pytest.approx([e["total"]["mean"] for e in each])
        assert part["totals"][-1]["mean"] == pytest.approx(part["total"]["mean"])
    assert found["published"] == {
        "name": "MAML",
        "returns": [-40.41, -11.68, -3.33, -3.23],
        "source": "cbfinn/maml_rl, icml/*.pkl",
    }
    assert {"metarl", "torch", "mujoco"} <= found["versions"].keys()


def test_it_keeps_how_each_seed_learned_in_a_few_points(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [Run.open(made / "runs" / f"seed_{seed}") for seed in (0, 1)]
    metrics, found = [run.read_metrics() for run in runs], result(made)["learning"]
    assert found["what"] == "return of the last round"
    for key, name in (("env_steps", "env_steps"), ("returns", "return_1")):
        assert np.array(found[key]) == pytest.approx(np.array([[m[name] for m in r] for r in metrics]), 1e-4)
    monkeypatch.setattr(study, "POINTS", 1)
    whole = study.learning(metrics)
    assert np.array(whole["returns"]) == pytest.approx(np.mean(found["returns"], 1, keepdims=True), abs=1e-3)


def test_how_it_was_learned_is_drawn_against_steps_and_minutes_also_of_one_seed(copied: Path) -> None:
    page = results.write_results(copied / "results").read_text()
    assert "](results/tiny_learning.svg)" in page
    path = copied / "results" / "tiny_learning.svg"
    assert {"environment steps", "minutes of training"} <= set(
        re.findall(r">([^<]+)</text>", path.read_text())
    )
    alone = result(copied)
    for key in ("env_steps", "seconds", "returns"):
        alone["learning"][key] = alone["learning"][key][:1]
    (copied / "results" / "tiny.json").write_text(json.dumps(alone))
    before = path.read_text()
    results.write_results(copied / "results")
    assert path.read_text() != before


def test_a_family_without_other_tasks_is_not_said_to_have_been_judged_on_unseen_ones(made: Path) -> None:
    found = result(made)
    assert "Unseen tasks: floor" in results.notes(found)
    assert "Beyond the trained range: floor" in results.notes(found)
    found["settings"]["family"] = "half-cheetah-dir/maml2017"
    assert "The tasks are those of training, as there are no others: floor" in results.notes(found)
    assert "nseen" not in results.notes(found)
    assert "Beyond" not in results.notes(found)


def test_a_study_of_one_parameter_keeps_every_tasks_mean_over_seeds_and_draws_it(tmp_path: Path) -> None:
    assert run_study(tmp_path, "--family=half-cheetah-vel/promp2019", seeds=("0",)) == 0
    found, run = result(tmp_path), Run.open(tmp_path / "runs" / "seed_0")
    for part, split in ((found, "test"), (found["ood"], "ood")):
        alone = json.loads(run.evaluation(split).read_text())
        assert part["per_task"] == alone["scores"]
        assert part["params"] == [task[0] for task in alone["params"]]
    page = results.write_results(tmp_path / "results").read_text()
    assert "](results/tiny_by_task.svg)" in page
    picture = (tmp_path / "results" / "tiny_by_task.svg").read_text()
    assert "velocity (m/s); grey: trained range" in picture


def test_its_settings_are_the_experiment(made: Path) -> None:
    settings = result(made)["settings"]
    assert "seed" not in settings
    assert build(settings | {"seed": 1}) == build(read(made / "runs" / "seed_1" / "run.yaml"))


def test_its_command_makes_it_again_without_a_path_of_this_machine(made: Path) -> None:
    command = result(made)["command"]
    assert command.startswith("python -m metarl.experiments.study quickstart --seeds 0 1 --out runs/tiny ")
    assert "--agent.hidden '[4]'" in command
    assert str(made) not in command


def test_a_finished_study_is_left_as_it_is(copied: Path) -> None:
    before = files(copied)
    assert run_study(copied) == 0
    assert files(copied) == before


def test_a_study_grows_by_a_seed(copied: Path) -> None:
    before = files(copied / "runs")
    assert run_study(copied, seeds=("0", "1", "2")) == 0
    after = files(copied / "runs")
    assert {name: after[name] for name in before} == before
    assert result(copied)["seeds"] == [0, 1, 2]
    assert len(result(copied)["rounds"][0]["per_seed"]) == 3


def test_an_interrupted_study_continues_to_the_same_result(copied: Path) -> None:
    wanted = result(copied)
    run = Run.open(copied / "runs" / "seed_1")
    shutil.rmtree(copied / "runs" / "seed_0")
    last = run.checkpoints / "00000002.pt"
    for path in (last, run.evaluation("test"), run.evaluation("ood"), run.report):
        path.unlink()  # killed after its second iteration, before that was kept
    assert run_study(copied) == 0
    found = result(copied)
    for one in (wanted, found):
        del one["seconds"], one["learning"]["seconds"]
    assert found == wanted
    assert [m["iteration"] for m in run.read_metrics()] == [0, 1]
    assert last.exists()
    assert run.report.exists()


def test_a_report_older_than_the_training_is_not_the_last_word(copied: Path) -> None:
    run = Run.open(copied / "runs" / "seed_0")
    assert study.finished(run, 2)
    assert not study.finished(run, 3)
    os.utime(run.report, ns=(0, 0))
    assert not study.finished(run, 2)


def test_a_run_that_was_judged_without_controls_is_judged_anew(copied: Path) -> None:
    wanted, run = result(copied), Run.open(copied / "runs" / "seed_0")
    old = json.loads(run.evaluation("ood").read_text())
    del old["controls"], old["control_scores"]
    run.evaluation("ood").write_text(json.dumps(old))
    assert run_study(copied) == 0
    assert "control_scores" in json.loads(run.evaluation("ood").read_text())
    assert result(copied) == wanted


def test_other_settings_do_not_mix_with_what_is_there(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(made)
    assert run_study(made, "--agent.inner_lr=0.3") == 2
    assert "seed_0' is a run with other settings; use another --out" in capsys.readouterr().err
    assert files(made) == before


@pytest.mark.parametrize(
    ("changes", "seeds"), [(("--seed=3",), ("0", "1")), ((), ("1", "1"))], ids=["as a setting", "twice"]
)
def test_seeds_are_given_once(
    changes: tuple[str, ...], seeds: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_study(tmp_path, *changes, seeds=seeds) == 2
    assert "allowed: different ones, given by --seeds alone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- the page


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(page: str) -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    return [[cells(line) for line in block.splitlines()] for block in blocks]


def shown(value: float) -> str:
    return f"{value:,.{3 if abs(value) < 1 else 2}f}".replace("-", "−")


def test_the_page_has_a_row_a_study(copied: Path) -> None:
    found = result(copied)
    page = results.write_results(copied / "results")
    assert page == copied / "RESULTS.md"
    overview, detail = tables(page.read_text())
    assert all(len(row) == len(overview[0]) for row in overview)
    assert all(len(row) == len(detail[0]) == 4 for row in detail)
    row = dict(zip(overview[0], overview[2], strict=True))
    assert row["study"] == "[tiny](#tiny)"
    assert (row["agent"], row["family"], row["seeds"]) == ("maml_trpo", "navigation/maml2017", "2")
    for k, r in enumerate(found["rounds"]):
        low, high = map(shown, r["ci95"])
        assert row[str(k)] == f"{shown(r['mean'])} [{low}, {high}]"
    assert row["last, memory wiped"] == shown(found["controls"]["wiped"]["mean"])
    assert row["published"] == "−40.41, −11.68, −3.33, −3.23"
    assert (row["floor"], row["oracle"]) == (shown(found["floor"]), shown(found["oracle"]))
    assert row["env steps"] == f"{np.mean(found['env_steps']):,.0f}"
    assert [line[0] for line in detail[2:]] == [
        "mean",
        "mean, stratified bootstrap",
        "IQM, stratified bootstrap",
        "worst 5 % of the tasks",
        "mean of seed 0",
        "mean of seed 1",
        "mean with another task's memory",
        "mean with memory wiped",
        "mean beyond the trained range",
        "MAML, published",
    ]
    assert found["command"] in page.read_text()


def test_a_single_iteration_has_no_curve(copied: Path) -> None:
    alone = result(copied)
    for key in ("env_steps", "seconds", "returns"):
        alone["learning"][key] = [values[:1] for values in alone["learning"][key]]
    (copied / "results" / "tiny.json").write_text(json.dumps(alone))
    (copied / "results" / "tiny_learning.svg").unlink(missing_ok=True)
    assert "tiny_learning" not in results.write_results(copied / "results").read_text()
    assert not (copied / "results" / "tiny_learning.svg").exists()


def test_every_picture_on_the_page_is_there_and_well_formed(copied: Path) -> None:
    page = results.write_results(copied / "results").read_text()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    assert pictures == ["results/tiny.svg", "results/tiny_learning.svg"]
    ET.parse(copied / pictures[1])
    text = (copied / pictures[0]).read_text()
    words = ["".join(t.itertext()) for t in ET.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert {"MAML, published", "floor", "oracle", "maml_trpo on navigation/maml2017, 2 seeds"} <= set(words)
    results.write_results(copied / "results")
    assert (copied / pictures[0]).read_text() == text


def test_studies_of_different_lengths_share_a_table(copied: Path) -> None:
    folder = copied / "results"
    short = result(copied)
    short["rounds"], short["published"] = short["rounds"][:2], None
    (folder / "a short one.json").write_text(json.dumps(short))
    page = results.write_results(folder).read_text()
    overview, *_ = tables(page)
    assert [row[0] for row in overview[2:]] == ["[a short one](#a-short-one)", "[tiny](#tiny)"]
    assert dict(zip(overview[0], overview[2], strict=True))["2"] == ""
    assert all(len(row) == len(overview[0]) for row in overview)


def test_a_study_from_before_there_were_controls_is_shown(copied: Path) -> None:
    old = result(copied)
    for part in (old, old["ood"]):
        for key in ("unit", "controls", "total", "totals", "solvers"):
            del part[key]
    del old["learning"]
    (copied / "results" / "tiny.json").write_text(json.dumps(old))
    overview, detail = tables(results.write_results(copied / "results").read_text())
    assert dict(zip(overview[0], overview[2], strict=True))["last, memory wiped"] == "not played"
    assert len(detail) == len(detail[0]) - 4 + 10


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of trials of many rounds; its solver earns what no agent does: do not touch."""
    folder = tmp_path_factory.mktemp("long")
    assert run_study(folder, "--family=navigation/pearl2019", "--evaluation.rounds=12x1") == 0
    path = folder / "results" / "tiny.json"
    found = json.loads(path.read_text())
    for part in (found, found["ood"]):
        totals = [{**r, "mean": -r["mean"], "ci95": [-x for x in r["ci95"][::-1]]} for r in part["totals"]]
        rounds = [-r["mean"] for r in part["rounds"]]
        part["solvers"] = {"solver": {"total": totals[-1], "totals": totals, "rounds": rounds}}
    path.write_text(json.dumps(found))
    return folder


def test_long_trials_have_a_table_of_their_own(long: Path, copied: Path) -> None:
    for path in (long / "results").glob("tiny*"):
        shutil.copy(path, copied / "results" / path.name.replace("tiny", "many"))
    found = json.loads((copied / "results" / "many.json").read_text())
    page = results.write_results(copied / "results").read_text()
    short, many, curve, sums, _ = tables(page)
    assert [row[0] for row in short[2:]] == ["[tiny](#tiny)"]
    assert [row[0] for row in many[2:]] == ["[many](#many)"]
    row, total = dict(zip(many[0], many[2], strict=True)), found["total"]
    low, high = map(shown, total["ci95"])
    assert row["total"] == f"{shown(total['mean'])} [{low}, {high}]"
    assert row["rounds"] == "12"
    assert row["solver"] == shown(-total["mean"])
    assert row["agent / best solver"] == "", "there is no share of it where one of them owes"
    assert row["oracle"] == shown(12 * found["oracle"])
    assert curve[0] == ["episodes", "0", "1", "2", "5", "10", "11"]
    assert sums[0] == ["total of the first rounds", "10", "12"]
    assert [line[0] for line in sums[2:]] == [
        "maml_trpo",
        "seed 0",
        "seed 1",
        "solver",
        "agent / best solver",
        "agent, beyond the trained range",
        "floor",
        "oracle",
    ]
    assert sums[2][2] == row["total"]
    assert "](results/many_solvers.svg)" in page
    assert ">solver</text>" in (copied / "results" / "many_solvers.svg").read_text()


def test_studies_are_in_order_of_the_numbers_in_their_names(long: Path, copied: Path) -> None:
    for name in ("n10_k50", "n10_k5", "n100_k5"):
        shutil.copy(long / "results" / "tiny.json", copied / "results" / f"{name}.json")
    _, many, *_ = tables(results.write_results(copied / "results").read_text())
    assert [row[0].partition("]")[0][1:] for row in many[2:]] == ["n10_k5", "n10_k50", "n100_k5"]


def test_a_long_study_keeps_seeds_of_what_is_shown_alone(long: Path) -> None:
    found = result(long)
    assert found["unit"] == "episodes"
    assert found["settings"]["evaluation"]["rounds"] == "12 x 1"
    assert [k for k, r in enumerate(found["rounds"]) if "per_seed" in r] == [0, 1, 2, 5, 10, 11]
    each = [
        json.loads(Run.open(long / "runs" / f"seed_{seed}").evaluation("test").read_text()) for seed in (0, 1)
    ]
    sums = np.array([e["scores"] for e in each]).sum(1)  # [S, N]
    assert found["total"]["mean"] == pytest.approx(sums.mean())
    assert found["total"]["per_seed"] == pytest.approx(sums.mean(1))


def test_a_folder_without_studies_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["--results", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "RESULTS.md")
    assert "There is no study here yet" in (tmp_path / "RESULTS.md").read_text()
