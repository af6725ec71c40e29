"""What a person watches: nothing where nobody does, and TensorBoard's curves where it is installed."""

from pathlib import Path

import pytest

from metarl import ConfigError
from metarl.experiments import build, config, progress, read


def test_nothing_is_written_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress(3, 0) as bar:
        bar.update(1, {"return_0": -1.0, "return_1": 2.0})
    assert capsys.readouterr() == ("", "")


def test_rounds_are_read_in_their_order_and_with_gaps() -> None:
    metrics = {"return_10": 3.0, "return_2": 2.0, "return_total": 9.0, "kl": 0.1, "return_0": 1.0}
    assert list(progress.returns_by_round(metrics).items()) == [(0, 1.0), (2, 2.0), (10, 3.0)]


def test_the_bar_tells_of_the_first_and_the_last_round_and_of_all() -> None:
    bar = progress.Progress(3, 0)
    bar.update(1, {"return_0": -1.0, "return_499": 2.0, "return_20": 7.0, "return_total": 640.0})
    assert "return -1.0 → 2.0, in all 640.0" in bar.bar.tasks[0].fields["note"]
    bar.update(2, {"return_0": -1.0, "return_1": 2.0})
    assert "in all" not in bar.bar.tasks[0].fields["note"]


def test_tensorboard_gets_every_metric(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    board = progress.TensorBoard(tmp_path / "tensorboard", True, 0)
    board.write(400, {"return_1": -3.0, "kl": 0.01})
    board.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"return_1" in content
    assert b"kl" in content


def test_tensorboard_can_be_left_out(tmp_path: Path) -> None:
    board = progress.TensorBoard(tmp_path / "a", False, 0)
    board.write(1, {"x": 1.0})
    board.close()
    assert not (tmp_path / "a").exists()


def test_tensorboard_that_is_missing_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "TENSORBOARD", False)
    tree = read("quickstart")
    build({**tree, "tensorboard": False})
    build(tree)
    with pytest.raises(ConfigError, match=r"pip install tensorboardX"):
        build({**tree, "tensorboard": True})
