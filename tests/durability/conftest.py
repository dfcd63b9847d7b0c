"""Where these tests have their files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory import directory_in_memory


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory: the disks that fail here are pretended."""
    with directory_in_memory() as path:
        yield path
