"""Directories for targets that need files: in memory, where the system has that."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # of no name that others could guess


def place() -> TemporaryDirectory[str]:
    """Return a directory of its own, which is removed behind the block that uses it."""
    return TemporaryDirectory(prefix="zmesh-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None)
