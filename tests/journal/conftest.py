"""Where these tests have their files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory import directory_in_memory


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory in memory: a sync is as good there, and costs nothing."""
    with directory_in_memory() as path:
        yield path
