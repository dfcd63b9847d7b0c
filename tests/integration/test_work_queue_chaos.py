"""What tests/chaos does with jobs and consumers that die, small enough to run with every test."""

from tests.chaos.work_queue import main, ok


async def test_jobs_end_once_and_in_order_though_consumers_are_killed() -> None:
    figures = await main(jobs=5000, kills=3)
    assert ok(figures), figures
    assert figures["kills"] == 3
    assert 0 < figures["uncertain"] <= 3 * 64, figures
    assert figures["moved_after_ms"] < 5000, figures
