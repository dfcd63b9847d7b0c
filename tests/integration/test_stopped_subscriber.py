"""What tests/chaos does with a stopped subscriber, small, and without a look at the clock."""

from tests.chaos.stopped_subscriber import (
    GROWTH_MAX,
    MIB,
    PASSED_MAX,
    QUEUED_BYTES_MAX,
    main,
)


async def test_a_stopped_subscriber_fills_a_queue_of_its_own_and_costs_others_nothing() -> None:
    figures = await main(
        seconds=1.5, settling=0.5, rounds=1, rate=200, size=16_384, others=4, processes=2
    )
    assert figures["missed_by_others"] == 0
    assert figures["published"] == 800
    assert MIB < figures["queued_bytes"] < QUEUED_BYTES_MAX + PASSED_MAX
    # A run this short is mostly allocators that warm up to such bodies: they get to 18 MiB.
    assert figures["growth"] < 2 * GROWTH_MAX
