"""A run's folder: run.yaml, metrics.jsonl, checkpoints/, evaluation.json, report.html."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import checkpoint
from .errors import RunError

KEEP = 3  # checkpoints, so that a corrupt one has predecessors
# what a run's folder may hold, and what a kill may have left half written
OWN = re.compile(
    r"\.?(run\.yaml|metrics\.jsonl|checkpoints|evaluation(_\w+)?\.json|report\.html|tensorboard)(\.\d+)?"
)


class Run:
    """The files of one run; what they mean is the experiment's business."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.config = self.folder / "run.yaml"
        self.metrics = self.folder / "metrics.jsonl"
        self.checkpoints = self.folder / "checkpoints"
        self.report = self.folder / "report.html"

    @classmethod
    def create(cls, folder: str | Path, config: str, overwrite: bool = False) -> "Run":
        """A new folder; RunError where it holds something, unless that is all of a run to be overwritten."""
        run = cls(folder)
        if run.folder.exists() and not run.folder.is_dir():
            raise RunError(f"out is {str(run.folder)!r}, which is a file; allowed: a folder")
        there = sorted(run.folder.iterdir()) if run.folder.exists() else []
        foreign = [p.name for p in there if not OWN.fullmatch(p.name)]
        if foreign:
            raise RunError(f"out is {str(run.folder)!r}, which holds {foreign[0]!r}; use another --out")
        if there and not overwrite:
            raise RunError(f"out is {str(run.folder)!r}, which is not empty; use --overwrite")
        for path in sorted(there, key=lambda p: p == run.config):  # run.yaml last: until then it is a run
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        run.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_atomically(run.config, config)
        return run

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """An existing run; RunError where there is none."""
        run = cls(folder)
        if not run.folder.is_dir():
            raise RunError(f"run folder {str(run.folder)!r} does not exist")
        if not run.config.is_file():
            raise RunError(f"{str(run.folder)!r} is not a run folder: it has no run.yaml")
        return run

    def evaluation(self, split: str) -> Path:
        """Where a split's evaluation is kept."""
        return self.folder / ("evaluation.json" if split == "test" else f"evaluation_{split}.json")

    def save(self, iteration: int, state: dict[str, Any]) -> None:
        """Write the checkpoint after so many iterations, and drop the oldest."""
        self.checkpoints.mkdir(exist_ok=True)
        checkpoint.save(self.checkpoints / f"{iteration:08d}.pt", {"iteration": iteration, **state})
        for old in sorted(self.checkpoints.glob("*.pt"))[:-KEEP]:
            old.unlink()

    def load(
        self, device: torch.device, foreign: Callable[[dict[str, Any]], str] = lambda state: ""
    ) -> dict[str, Any] | None:
        """The newest checkpoint that can be read and is this run's; None where there is none at all.

        `foreign` says what shows that a state is another run's, or nothing. Warns on standard error of
        each that will not do; RunError where none of several will.
        """
        paths = sorted(self.checkpoints.glob("*.pt"), reverse=True)
        for path in paths:
            try:
                state = checkpoint.load(path, device)
                if why := foreign(state):
                    raise RunError(f"checkpoint {path} is another run's: {why}")
                return state
            except RunError as error:
                last = path == paths[-1]
                print(f"metarl: {error}{'' if last else '; trying the one before'}", file=sys.stderr)
        if paths:
            raise RunError(f"none of the {len(paths)} checkpoints in {self.checkpoints} can be used")
        return None

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl; a last one that a kill cut short is left out."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_bytes().split(b"\n")[:-1]
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise RunError(f"{self.metrics} is damaged: {error}") from None

    def rewind(self, iteration: int) -> None:
        """Forget the metrics of iterations from this one on: they will be made again."""
        kept = [json.dumps(m) + "\n" for m in self.read_metrics() if m["iteration"] < iteration]
        checkpoint.write_atomically(self.metrics, "".join(kept))
        for left in self.checkpoints.glob(".*"):  # by a kill in the middle of a write
            left.unlink()


class MetricsFile:
    """metrics.jsonl, open for appending."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, metrics: dict[str, Any]) -> None:
        """Append one line."""
        self._file.write(json.dumps(metrics, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Make sure that all lines are on the disk: a checkpoint must not know more than the metrics."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
