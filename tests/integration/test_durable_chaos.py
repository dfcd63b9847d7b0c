"""What tests/chaos does with a producer and a consumer that die, small enough for every run."""

from tests.chaos.durable import main, ok


async def test_each_effect_is_there_once_though_both_sides_are_killed() -> None:
    figures = await main(messages=2000, kills=4, longest_s=1.0)
    assert ok(figures), figures
    assert figures["sent"] == 2000
    assert figures["kills_of_producer"] >= 4
    assert figures["kills_of_consumer"] >= 4
