"""What tests/chaos does with large bodies and files, small enough to run with every test."""

import asyncio

from tests.chaos.large_transfers import main


async def test_large_things_pass_whole_though_processes_die_and_connections_break() -> None:
    runs = ["stream_body", "stream_answer", "receiver_killed", "connections_cut"]
    for figures in await asyncio.gather(*(main(24, [name]) for name in runs)):
        assert figures["ok"], figures
        [name] = runs & figures.keys()
        for side in ("sender", "receiver"):
            assert figures[name][f"{side}_growth_mib"] < 20, figures
