"""Errors that a user can mend: one line that names the field, its value and what is allowed."""

from collections.abc import Iterable
from difflib import get_close_matches

MANY = 60  # names that one line can hold


class MetarlError(ValueError):
    """What the command line prints as one line, with exit status 2."""


class ConfigError(MetarlError):
    """A field has a value that is not allowed, or does not exist."""


class TaskError(MetarlError):
    """A task lies outside the family's task space."""


class RunError(MetarlError):
    """A run folder is missing, foreign, or has no checkpoint that can be read."""


def unknown(kind: str, name: object, allowed: Iterable[str]) -> ConfigError:
    """The error for a name that is not among the allowed ones, with the nearest of them as a suggestion."""
    choices = sorted(allowed)
    near = get_close_matches(str(name), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if len(choices) > MANY:
        choices = [*choices[: MANY // 2], f"... ({len(choices)} in all)"]
    return ConfigError(f"unknown {kind} {name!r}; allowed: {', '.join(choices)}{hint}")
