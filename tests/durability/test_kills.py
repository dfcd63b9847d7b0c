"""A process is killed with SIGKILL while it writes: what it had acknowledged is there."""

from pathlib import Path

from tests.durability.kills import kill_again_and_again


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    figures = kill_again_and_again(tmp_path, kills=12, seed=1)
    assert figures.is_good(), figures
    assert figures.kills == 12
    assert figures.acknowledged > 100
