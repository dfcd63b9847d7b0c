"""Where these tests have their files."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108  # syncs there cost nothing, and prove nothing here


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory where there is one: for disks that are pretended to fail."""
    path = Path(tempfile.mkdtemp(prefix="zmesh-", dir=MEMORY if MEMORY.is_dir() else None))
    yield path
    shutil.rmtree(path)
