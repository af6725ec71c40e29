"""Files that are never half written, and checkpoints of plain tensors and numbers."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from .errors import RunError

FORMAT = "metarl-checkpoint-1"


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary name, sync, rename: a reader sees the old file or the new one, whole."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a state back, without running any code in it; RunError where it is corrupt or foreign."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise RunError(f"checkpoint {path} is corrupt (record {damaged})")
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except RunError:
        raise
    except Exception as error:  # zip and pickle fail in many ways, and all of them mean the same
        reason = str(error).partition("\n")[0][:80]
        raise RunError(f"checkpoint {path} cannot be read ({type(error).__name__}: {reason})") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(f"checkpoint {path} is not one of metarl's ({FORMAT})")
    return state
