"""Waiting for what comes of itself, from another thread, socket or process."""

import asyncio
from collections.abc import Callable


async def until(happened: Callable[[], bool], within: float = 10.0) -> None:
    """Return as soon as it happened; fail the test where it does not."""
    async with asyncio.timeout(within):
        while not happened():  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.001)
