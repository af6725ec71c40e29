"""The command line as its users and their scripts meet it."""

import json
import re
from pathlib import Path

import pytest
import yaml

from metarl import statistics
from metarl.experiments import build, main, override, read, split_settings, to_yaml

TINY = [
    *("--iterations=2", "--meta_batch_size=2", "--rounds=[2,2]"),
    *("--evaluation.rounds=[2,2,2]", "--agent.hidden=[4]", "--agent.credit=null"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "quickstart", "--out", str(out), *TINY]) == 0
    return out


def test_a_run_folder_holds_what_a_machine_reads(run: Path) -> None:
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [m["iteration"] for m in metrics] == [0, 1]
    assert metrics[-1]["env_steps"] == 2 * 2 * (2 + 2) * 100  # no episode ends early so soon
    assert {"seconds", "return_0", "return_1", "kl"} <= metrics[0].keys()
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert list((run / "checkpoints").glob("*.pt"))
    assert json.loads((run / "evaluation.json").read_text())["tasks"] == 40


def test_a_runs_own_file_is_an_experiment_that_repeats_it_bit_for_bit(run: Path, tmp_path: Path) -> None:
    assert main(["train", str(run / "run.yaml"), "--out", str(tmp_path / "again")]) == 0
    ours, theirs = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (run, tmp_path / "again")
    )
    for line in (*ours, *theirs):
        del line["seconds"]
    assert ours == theirs
    assert (run / "evaluation.json").read_text() == (tmp_path / "again" / "evaluation.json").read_text()


def test_evaluate_prints_one_object(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("test", "ood"):
        assert main(["evaluate", str(run), "--split", split, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["family"], found["agent"], found["split"]) == (
            "navigation/maml2017",
            "maml_trpo",
            split,
        )
        assert found["tasks"] == 40
        assert len(found["rounds"]) == 3
        for r in found["rounds"]:
            low, high = r["ci95"]
            assert low <= r["mean"] <= high
            assert r["cvar5"] <= r["iqm"]
        assert found["floor"] < found["oracle"]
    assert found["floor"] < -60  # goals beyond the training range are further away


def test_evaluate_shows_the_controls(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["controls"].keys() == {"shuffled", "wiped"}
    assert not {"params", "scores", "control_scores"} & found.keys(), "what is of each task stays in the file"
    kept = json.loads((run / "evaluation.json").read_text())
    for name, control in found["controls"].items():
        assert len(kept["control_scores"][name]) == 40
        assert sum(kept["control_scores"][name]) / 40 == pytest.approx(control["mean"])
    assert main(["evaluate", str(run)]) == 0
    text = capsys.readouterr().out
    shuffled, wiped = (statistics.rounded(found["controls"][name]["mean"]) for name in ("shuffled", "wiped"))
    assert f"last round, another task's memory: {shuffled}" in text
    assert f"last round, memory wiped: {wiped}" in text


def test_evaluation_repeats_itself(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for _ in range(2):
        assert main(["evaluate", str(run), "--json"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_adapt_shows_one_task(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapt", str(run), "--task", "goal_x=0.3", "--task", "goal_y=-0.2"]) == 0
    assert "goal_x = 0.3" in capsys.readouterr().out
    assert main(["adapt", str(run), "--task", "goal_x=0.3", "--task", "goal_y=-0.2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == {"goal_x": 0.3, "goal_y": -0.2}
    assert found["floor"] == pytest.approx(-100 * (0.3**2 + 0.2**2) ** 0.5, rel=1e-5)
    assert found["controls"].keys() == {"wiped"}, "there is no other task here"


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"families", "agents", "solvers", "experiments"}
    assert all(all(group.values()) for group in found.values()), "each has its line"
    for solver in found["solvers"].values():
        assert solver["summary"]
        assert set(solver["families"]) <= found["families"].keys()
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for group in found.values() for name in group)


def test_help_is_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["render"], ["train"], ["evaluate"], ["adapt"], ["report"], ["list"]):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--help"])
        assert stop.value.code == 0
        assert "usage: metarl" in capsys.readouterr().out


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    for key in ("--agent.inner_lr ", "--evaluation.rounds ", "--meta_batch_size "):
        assert key in text
    settings = re.findall(r"^  --(\S+) +(.*)$", text, re.MULTILINE)
    assert len(settings) > 100
    unexplained = [key for key, words in settings if not words[:1].isalpha()]
    assert not unexplained  # those that an agent inherits, too


def test_settings_may_be_given_in_two_ways_and_anywhere() -> None:
    own, settings = split_settings(["train", "--a.b", "1", "x", "--c=2", "--out", "y", "--d", "-3"])
    assert own == ["train", "x", "--out", "y"]
    assert settings == {"a.b": "1", "c": "2", "d": "-3"}


def test_a_user_s_own_file_works(run: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load((run / "run.yaml").read_text())
    tree["seed"], tree["family"] = 5, "navigation-sparse/pearl2019"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert main(["train", str(path), "--out", str(tmp_path / "run"), "--iterations", "1"]) == 0
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["seed"] == 5


@pytest.mark.parametrize(
    ("text", "rounds", "written"),
    [
        ("8 x 1", (1,) * 8, "8 x 1"),
        ("500x2", (2,) * 500, "500 x 2"),
        ("3 x 5", (5, 5, 5), [5, 5, 5]),  # a few are a list
        ("[9, 9]", (9, 9), [9, 9]),
        ("[1, 1, 1, 1, 1, 1, 1]", (1,) * 7, "7 x 1"),
        ("[1, 1, 1, 1, 1, 1, 2]", (1, 1, 1, 1, 1, 1, 2), [1, 1, 1, 1, 1, 1, 2]),
    ],
)
def test_rounds_may_be_given_in_short(text: str, rounds: tuple[int, ...], written: object) -> None:
    changes = {"rounds": text, "evaluation.rounds": text, "agent.credit": "null"}
    experiment = build(override(read("quickstart"), changes))
    assert experiment.rounds == experiment.evaluation.rounds == rounds
    tree = yaml.safe_load(to_yaml(experiment))
    assert tree["rounds"] == tree["evaluation"]["rounds"] == written
    assert build(tree) == experiment


BAD = {
    "train": ("experiment is missing", "quickstart"),
    "train quickstrt": ("unknown experiment 'quickstrt'", "did you mean 'quickstart'"),
    "train quickstart --family navigation/maml": ("unknown family", "navigation/maml2017"),
    "train quickstart --agent.name mamltrpo": ("unknown agent", "maml_trpo"),
    "train quickstart --agent.inner_lrr 1": (
        "unknown key 'agent.inner_lrr'",
        "did you mean 'agent.inner_lr'",
    ),
    "train quickstart --iteratons 1": ("unknown key 'iteratons'", "did you mean 'iterations'"),
    "train quickstart --evaluation.sed 1": ("unknown key 'evaluation.sed'", "evaluation.seed"),
    "train quickstart --seed.x 1": ("unknown key 'seed.x'",),
    "train quickstart --agent.inner_lr -0.1": ("agent.inner_lr is -0.1", "greater than 0"),
    "train quickstart --agent.inner_lr nan": ("agent.inner_lr", "nan"),
    "train quickstart --meta_batch_size 0": ("meta_batch_size is 0", "greater than 0"),
    "train quickstart --iterations many": ("iterations is 'many'", "integer"),
    "train quickstart --rounds [20,0]": ("rounds.1 is 0", "greater than 0"),
    "train quickstart --rounds [": ("rounds is '['",),
    "train quickstart --rounds [20]": ("rounds is [20]", "2 or more"),
    "train quickstart --rounds 5y3": ("rounds is '5y3'", "[20, 20]", "ROUNDS x EPISODES", "500 x 1"),
    "train quickstart --rounds 0x3": ("rounds is 3; allowed", "500 x 1"),
    "train quickstart --evaluation.rounds 5x0": ("evaluation.rounds is '5x0'; allowed", "500 x 1"),
    "train quickstart --evaluation.rounds 100001x1": ("evaluation.rounds is '100001x1'", "up to 100000"),
    "train quickstart --evaluation.rounds null": ("evaluation.rounds is None; allowed",),
    "train quickstart --rounds [20,20]": ("agent.credit is [1.0, 1.0]", "a list of 1"),
    "train quickstart --agent.activation selu": ("agent.activation is 'selu'", "'tanh' or 'relu'"),
    "train quickstart --device tpu": ("device is 'tpu'", "cpu"),
    "train quickstart --seed": ("--seed needs a value",),
    "train quickstart extra": ("extra",),
    "train --resume /no/such/run": ("'/no/such/run' does not exist",),
    "train quickstart --resume /no/such/run": ("--resume takes the run's own experiment",),
    "evaluate /no/such/run": ("'/no/such/run' does not exist",),
    "evaluate RUN --split tst": ("--split", "'test'"),
    "evaluate RUN --surplus": ("--surplus",),
    "adapt RUN --task goal_x=0.3": ("'goal_y' is missing", "goal_x, goal_y"),
    "adapt RUN --task goal_x=3 --task goal_y=0": ("goal_x is 3", "-1 to 1"),
    "adapt RUN --task goal_x=nan --task goal_y=0": ("goal_x is nan", "-1 to 1"),
    "adapt RUN --task goal_z=3": ("unknown task parameter 'goal_z'", "goal_x, goal_y"),
    "adapt RUN --task goal_x": ("task is 'goal_x'", "NAME=NUMBER"),
    "adapt RUN": ("--task",),
    "train quickstart --out RUN": ("is not empty", "--overwrite"),
    "adapt RUN --task goal_x=0.3 --task goal_x=0.1 --task goal_y=0": ("'goal_x' is given twice",),
    "train quickstart --agent.name [maml_trpo]": ("unknown agent ['maml_trpo']",),
    "train quickstart --description 2026-13-45": ("description is '2026-13-45'",),
    "train quickstart --seed 99999999999999999999": ("seed is 99999999999999999999",),
    "train quickstart --evaluation.seed -1": ("evaluation.seed is -1", "greater than or equal to 0"),
    "train quickstart --agent.inner_lr .inf": ("agent.inner_lr is inf", "finite"),
    "train quickstart --agent.curvature_fraction 1e-320": ("agent.curvature_fraction",),
    "train quickstart --family navigation/pearl2019 --meta_batch_size 100": (
        "number of tasks is 100",
        "1 to 80",
    ),
    "train quickstart --agent.hidden [100000000000]": ("out of memory", "agent.hidden"),
    "evaluate RUN --device tpu": ("device is 'tpu'", "cpu"),
    "rain": ("invalid choice: 'rain'", "'train'"),
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_that_names_it(
    line: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(line.replace("RUN", str(run)).split()) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("metarl: error: ")
    assert error.count("\n") == 1
    for part in BAD[line]:
        assert part in error
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("family: [", "not a YAML file"),
        ("just words", "holds a str"),
        ("family: navigation/maml2017", "agent.name is missing"),
        ("agent: {name: maml_trpo}", "family is missing"),
        ("family: 3\nagent: {name: maml_trpo}", "family is 3"),
    ],
)
def test_a_bad_file_is_one_line(
    text: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_only_a_runs_own_files_are_overwritten(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    again = ["train", str(run / "run.yaml"), "--out", str(out), "--iterations=1", "--overwrite"]
    assert main(again) == 0
    assert main(again) == 0, "a run is replaced"
    (out / "thesis").mkdir()
    (out / "thesis" / "chapter.tex").write_text("years of work")
    assert main(again) == 2
    assert (out / "thesis" / "chapter.tex").exists()
    (out / "thesis" / "chapter.tex").unlink()
    (out / "thesis").rmdir()
    monkeypatch.chdir(out)
    again[3] = "."
    assert main(again) == 0, "from inside, too"


def test_a_report_is_of_the_agent_as_it_is_now(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert main(["train", str(run / "run.yaml"), "--out", str(out), "--iterations=1"]) == 0
    wanted = (out / "evaluation.json").read_text()
    (out / "evaluation.json").write_text((run / "evaluation.json").read_text())
    assert wanted != (run / "evaluation.json").read_text()
    assert main(["report", str(out)]) == 0
    assert (out / "evaluation.json").read_text() == wanted


def test_damaged_metrics_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, part in (("", "missing or empty"), ("rubbish\n", "is damaged")):
        out = tmp_path / part.split()[0]
        assert main(["train", str(run / "run.yaml"), "--out", str(out), "--iterations=1"]) == 0
        (out / "metrics.jsonl").write_text(text)
        capsys.readouterr()
        assert main(["report", str(out)]) == 2
        assert part in capsys.readouterr().err


def test_a_run_that_diverges_stops_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", "quickstart", "--out", str(out), *TINY, "--agent.inner_lr=1e38"]) == 2
    error = capsys.readouterr().err
    assert "in iteration 0: the agent diverged" in error
    assert error.count("\n") == 1


def test_a_folder_that_is_no_run_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["train", "quickstart", "--out", str(tmp_path), "--overwrite"]) == 2
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text((run / "run.yaml").read_text())
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "has no checkpoint yet" in capsys.readouterr().err


def test_half_cheetah_trains(tmp_path: Path) -> None:
    out = tmp_path / "cheetah"
    assert main(["train", "half_cheetah_vel", "--out", str(out), *TINY]) == 0
    found = json.loads((out / "evaluation.json").read_text())
    assert found["family"] == "half-cheetah-vel/maml2017"
