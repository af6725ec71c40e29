"""How settings are declared, read and checked: frozen dataclasses, each field followed by its meaning."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from .errors import ConfigError, unknown

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

UNREADABLE = (yaml.YAMLError, ValueError, RecursionError)  # a date that cannot be is a ValueError

Settings = TypeVar("Settings")


def read_yaml(path: Path) -> dict[str, Any]:
    """The tree of a YAML file; ConfigError where it is none."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UNREADABLE as error:
        raise ConfigError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds a {type(tree).__name__}; allowed: keys and values")
    return tree


def checked(
    kind: type[Settings], tree: Mapping[str, Any], prefix: str = "", allowed: Iterable[str] | None = None
) -> Settings:
    """The settings of a class from a tree of plain values, whose keys an error names after `prefix`.

    ConfigError, in one line, for what is missing, unknown (of the class's keys, or of those `allowed`)
    or not allowed.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(tree))
    except ValidationError as error:
        first = error.errors()[0]
    key = " ".join((prefix + ".".join(str(part) for part in first["loc"])).split())
    if first["type"] == "unexpected_keyword_argument":
        raise unknown("key", key, allowed or keys(kind, prefix))
    if first["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        raise ConfigError(f"{key} is missing")
    raise ConfigError(f"{key} is {first['input']!r}; {first['msg'][0].lower()}{first['msg'][1:]}")


def keys(kind: type, prefix: str = "") -> list[str]:
    """All dotted keys of a class of settings."""
    found = list[str]()
    for name, field in kind.__pydantic_fields__.items():  # type: ignore[attr-defined]
        nested = hasattr(field.annotation, "__pydantic_fields__")
        found += keys(field.annotation, f"{prefix}{name}.") if nested else [prefix + name]
    return found
