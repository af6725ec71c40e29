"""What a person watches: nothing where nobody does, and TensorBoard's curves where it is installed."""

from pathlib import Path

import pytest

from metarl import ConfigError
from metarl.experiments import progress


def test_nothing_is_written_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress(3, 0) as bar:
        bar.update(1, {"return_0": -1.0, "return_1": 2.0})
    assert capsys.readouterr() == ("", "")


def test_tensorboard_gets_every_metric(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    board = progress.TensorBoard(tmp_path / "tensorboard", None, 0)
    board.write(400, {"return_1": -3.0, "kl": 0.01})
    board.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"return_1" in content
    assert b"kl" in content


def test_tensorboard_can_be_left_out_and_is_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = progress.TensorBoard(tmp_path / "a", False, 0)
    board.write(1, {"x": 1.0})
    board.close()
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    progress.TensorBoard(tmp_path / "b", None, 0).close()
    with pytest.raises(ConfigError, match=r"pip install metarl-suite\[tensorboard\]"):
        progress.TensorBoard(tmp_path / "c", True, 0)
