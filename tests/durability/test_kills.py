"""A process is killed with SIGKILL while it writes: what it had acknowledged is there."""

from pathlib import Path

import pytest

from tests.durability.kills import kill_again_and_again
from tests.journal.support import KEY
from zmesh.security.storage_key import StorageKey


@pytest.mark.parametrize(("key", "kills"), [(None, 12), (KEY, 6)], ids=["plain", "encrypted"])
def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(
    tmp_path: Path, key: StorageKey | None, kills: int
) -> None:
    figures = kill_again_and_again(tmp_path, kills=kills, seed=1, key=key)
    assert figures.is_good(), figures
    assert figures.kills == kills
    assert figures.acknowledged > 8 * kills
