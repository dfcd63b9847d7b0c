"""Files in memory where there is room for them: for what is pretended to fail, or takes syncs."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108


@contextmanager
def directory_in_memory() -> Iterator[Path]:
    """A directory that is removed at the end; on disk where there is none in memory."""
    path = Path(tempfile.mkdtemp(prefix="zmesh-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)
