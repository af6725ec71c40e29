"""Nothing is lost: killed, interrupted, out of disk or with corrupt files, a run continues bit for bit."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from metarl import RunError, checkpoint
from metarl.experiments import main
from metarl.runs import Run

SETTINGS = [
    *("--iterations=12", "--checkpoint_every=3", "--meta_batch_size=3", "--rounds=[3,3]"),
    *(
        "--evaluation.rounds=[2,2]",
        "--agent.hidden=[8]",
        "--agent.learn_inner_lr=true",
        "--agent.credit=null",
    ),
]
CPU = torch.device("cpu")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "metarl.experiments", *arguments]


def metrics(run: Path) -> list[dict[str, Any]]:
    """All metrics but the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same(a: Path, b: Path) -> None:
    """Metrics, weights, generator and evaluation of two runs are equal to the last bit."""
    assert metrics(a) == metrics(b)
    ours, theirs = Run(a).load(CPU), Run(b).load(CPU)
    assert ours is not None
    assert theirs is not None
    assert ours["agent"].keys() == theirs["agent"].keys()
    assert all(torch.equal(ours["agent"][k], theirs["agent"][k]) for k in ours["agent"])
    assert torch.equal(ours["rng"], theirs["rng"])
    assert (a / "evaluation.json").read_text() == (b / "evaluation.json").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", "quickstart", "--out", str(out), *SETTINGS]) == 0
    assert len(metrics(out)) == 12
    return out


def started(out: Path, *arguments: str, lines: int) -> subprocess.Popen[str]:
    """A real training process that has written so many lines of metrics."""
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.005)
    return process


def test_a_run_that_is_killed_at_random_moments_ends_as_if_it_had_not_been(
    whole: Path, tmp_path: Path
) -> None:
    moments, out = random.Random(0), tmp_path / "killed"
    arguments = ["train", "quickstart", "--out", str(out), *SETTINGS]
    for lines in (2, 5, 9):
        process = started(out, *arguments, lines=lines)
        time.sleep(0.1 * moments.random())
        process.kill()
        process.communicate()
        arguments = ["train", "--resume", str(out)]
    assert main(arguments) == 0
    assert_same(whole, out)


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "interrupted"
    process = started(out, "train", "quickstart", "--out", str(out), *SETTINGS, lines=4)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130, error
    assert f"metarl train --resume {out}" in error
    assert error.count("\n") == 1
    saved = Run(out).load(CPU)
    assert saved is not None
    assert saved["iteration"] == len(metrics(out)) < 12, "what was done is saved, not only every third"
    assert main(["train", "--resume", str(out)]) == 0
    assert_same(whole, out)


def test_a_finished_run_can_be_given_more_iterations(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "short"
    short = [*SETTINGS, "--iterations", "5"]
    assert main(["train", "quickstart", "--out", str(out), *short]) == 0
    assert main(["train", "--resume", str(out), "--iterations", "12"]) == 0
    assert_same(whole, out)
    assert main(["train", "--resume", str(out), "--seed", "3"]) == 2
    assert main(["train", "--resume", str(out), "--iterations", "0"]) == 2
    assert main(["train", "--resume", str(out), "--iterations", "many"]) == 2


def copied(run: Path, to: Path) -> Path:
    subprocess.run(["cp", "-r", str(run), str(to)], check=True)
    return to


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "pickle", "other seed"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    damage: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(whole, tmp_path / "run")
    newest = max((out / "checkpoints").glob("*.pt"))
    data = newest.read_bytes()
    state = torch.load(newest, weights_only=True)
    if damage == "flip":
        weights = state["agent"]["policy.weights.0"].numpy().tobytes()
        place = data.index(weights)
        newest.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    elif damage == "cut":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, newest)
    elif damage == "other seed":
        state["experiment"]["seed"] = 7
        torch.save(state, newest)
    else:
        torch.save(random.Random(0), newest)
    assert main(["train", "--resume", str(out)]) == 0
    error = capsys.readouterr().err
    assert newest.name in error
    assert "trying the one before" in error
    assert_same(whole, out)


def test_a_run_whose_checkpoints_are_all_damaged_is_one_clear_error(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(whole, tmp_path / "run")
    for path in (out / "checkpoints").glob("*.pt"):
        path.write_bytes(b"rubbish")
    assert main(["evaluate", str(out)]) == 2
    assert "can be used" in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_of_another_run_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(whole, tmp_path / "run")
    text = (out / "run.yaml").read_text()
    (out / "run.yaml").write_text(text.replace("inner_lr: 0.5", "inner_lr: 0.4"))
    assert main(["evaluate", str(out)]) == 2
    assert "agent.inner_lr is 0.5, the run's is 0.4" in capsys.readouterr().err
    (out / "run.yaml").write_text(text.replace("meta_batch_size: 3", "meta_batch_size: 4"))
    assert main(["train", "--resume", str(out)]) == 2
    assert "meta_batch_size is 3, the run's is 4" in capsys.readouterr().err


def test_a_run_cannot_be_given_fewer_iterations_than_it_has_had(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(whole, tmp_path / "run")
    assert main(["train", "--resume", str(out), "--iterations", "5"]) == 2
    assert "iterations is 5; allowed: 12 or more" in capsys.readouterr().err
    assert_same(whole, out)


def test_a_run_from_another_device_can_be_judged_and_not_continued(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(whole, tmp_path / "run")
    for path in (out / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        state["experiment"]["device"] = "cuda"
        state["rng"] = torch.zeros(16, dtype=torch.uint8)  # a CUDA generator's state has another size
        torch.save(state, path)
    assert main(["evaluate", str(out), "--device", "cpu"]) == 0
    assert (out / "evaluation.json").read_text() == (whole / "evaluation.json").read_text()
    assert main(["train", "--resume", str(out)]) == 2
    assert "device is 'cpu'; allowed: 'cuda'" in capsys.readouterr().err


def test_loading_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save({"format": checkpoint.FORMAT, "x": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(RunError, match="cannot be read"):
        checkpoint.load(tmp_path / "evil.pt", CPU)
    assert not (tmp_path / "ran").exists()


def test_a_write_that_fails_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    checkpoint.write_atomically(path, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.write_atomically(path, "new and longer")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "no temporary file stays behind"


def test_a_full_disk_is_one_line_and_what_was_saved_is_intact(whole: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: metrics fit, the next report does not."""
    out = copied(whole, tmp_path / "run")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    done = subprocess.run(
        command("train", "--resume", str(out), "--iterations", "20"),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    saved = Run(out).load(CPU)
    assert saved is not None
    assert saved["iteration"] == 12
    assert main(["train", "--resume", str(out), "--iterations", "12"]) == 0
    assert_same(whole, out)
