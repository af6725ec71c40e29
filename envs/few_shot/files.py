"""Files of data sets: fetched once into the user's cache, and pictures read with a bar for those who wait."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import IO, BinaryIO, TypeVar
from urllib.request import urlopen

from PIL import Image
from rich.console import Console
from rich.progress import track, wrap_file

from metarl import ConfigError
from metarl.checkpoint import write_atomically

CHUNK = 1 << 16  # bytes between two movements of the bar
TIMEOUT = 30.0  # seconds without any answer

Item = TypeVar("Item")


def cache(name: str) -> Path:
    """The folder of a data set, in $METARL_DATA or, where that is not set, in ~/.cache/metarl."""
    return Path(os.environ.get("METARL_DATA") or "~/.cache/metarl").expanduser() / name


def fetch(url: str, path: Path, md5: str, instead: str) -> None:
    """Write what lies at a URL to a path, whole and with this checksum, or not at all.

    ConfigError says what went wrong, and what the user may do `instead`.
    """
    try:
        with urlopen(url, timeout=TIMEOUT) as response:
            size = int(response.headers.get("Content-Length") or 0)
            data = _read_all(response, size, f"Fetching {path.name}")
    except (OSError, HTTPException, ValueError) as error:
        raise ConfigError(f"{url} could not be fetched ({_reason(error)}); {instead}") from None
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ConfigError(f"{url} came with the md5 {found}, not {md5}, {len(data)} bytes; {instead}")
    keep(path, data)


def keep(path: Path, data: bytes) -> None:
    """Write to the cache; ConfigError where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except OSError as error:
        reason = f"{path} cannot be written ({_reason(error)})"
        raise ConfigError(f"{reason}; METARL_DATA may name another folder") from None


def picture(source: Path | IO[bytes], name: object) -> Image.Image:
    """A picture, decoded; ConfigError, with its name, where that fails."""
    try:
        with Image.open(source) as image:
            image.load()
    except Exception as error:  # each format fails in ways of its own, and all of them mean the same
        raise unreadable(name, error) from None
    return image


def unreadable(name: object, error: Exception) -> ConfigError:
    """The error for a file that is missing, damaged or something else than its name says."""
    return ConfigError(f"{name} cannot be read ({type(error).__name__}: {_reason(error)})")


def watched(items: Sequence[Item], what: str) -> Iterable[Item]:
    """The same items, with a bar on the terminal."""
    console = Console(stderr=True)
    return track(items, what, console=console, transient=True, disable=not console.is_terminal)


def _read_all(file: BinaryIO, size: int, what: str) -> bytes:
    """What a file of that many bytes holds, with a bar on the terminal."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with wrap_file(file, size, description=what, console=console, transient=True, disable=hidden) as shown:
        return b"".join(iter(partial(shown.read, CHUNK), b""))


def _reason(error: Exception) -> str:
    """An error's own words, in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
