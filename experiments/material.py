"""What a report is made of."""

from typing import Any, NamedTuple

from metarl.runs import Run

from .session import Session


class Material(NamedTuple):
    """What a report is made of: the run's files, and its trained session to play a little more."""

    run: Run
    session: Session
    test: dict[str, Any]
    ood: dict[str, Any]
    metrics: list[dict[str, Any]]
