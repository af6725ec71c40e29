"""What a person watches during training: a progress bar on a terminal, TensorBoard where it is installed."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


def returns_by_round(metrics: Mapping[str, float]) -> dict[int, float]:
    """The mean returns of the rounds that an iteration's metrics tell of, return_0, return_1, ..."""
    rounds = (key.removeprefix("return_") for key in metrics if key.startswith("return_"))
    return {k: metrics[f"return_{k}"] for k in sorted(int(r) for r in rounds if r.isdecimal())}


class Progress:
    """A bar with return, iterations/s and time left; nothing at all where nobody watches."""

    def __init__(self, iterations: int, done: int) -> None:
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self.bar = Bar(*columns, console=console, disable=not sys.stderr.isatty())
        self.task = self.bar.add_task("meta-training", total=iterations, completed=done, note="")

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, done: int, metrics: dict[str, float]) -> None:
        """Show how far it is, and the return of the first and of the last round."""
        returns = [*returns_by_round(metrics).values()]
        total = f", in all {metrics['return_total']:.1f}" if "return_total" in metrics else ""
        speed = self.bar.tasks[0].speed or 0.0
        note = f"return {returns[0]:.1f} → {returns[-1]:.1f}{total}  {speed:.2f} it/s"
        self.bar.update(self.task, completed=done, note=note)


class TensorBoard:
    """The metrics as TensorBoard events, against environment steps."""

    def __init__(self, folder: Path, wanted: bool, start: int) -> None:
        self.writer: Any = None
        if wanted:
            from tensorboardX import SummaryWriter

            # what a killed run wrote beyond its last checkpoint will be written again
            self.writer = SummaryWriter(str(folder), purge_step=start + 1)

    def write(self, env_steps: int, metrics: dict[str, float]) -> None:
        """Add one point to each curve."""
        if self.writer:
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, env_steps)

    def close(self) -> None:
        """Write what is left."""
        if self.writer:
            self.writer.close()
