"""Streams of acknowledged messages, and how long what befalls them may take.

Measured without other load a peer is suspected after 4.0 s, lost after 6.0 s, and back 0.1 s after
the plug where it was lost, 3 s where it was suspected. The bounds leave room for busy machines, on
which nodes notice that they are late themselves, and are more patient.
"""

import asyncio

from tests.netns.residents import Resident

PAUSE = 3.0
"""Seconds of silence nobody is suspected for (`acceptable_pause`)."""

SUSPECTED = 8.0
"""A PING after 0.25 s while data is pending, then phi 8 within 4 s, where answers are quick."""

LOST = 12.0
"""Then a round of probes, which a machine out of reach leaves unanswered for 2 s, and phi 12."""

BACK = 12.0
"""Dials of 2 s that began before the plug, their back-off, and TCP's own."""


def streams(a: Resident, b: Resident, count: int, pause: float) -> "list[asyncio.Task[int]]":
    """Have both send so many numbers to each other, with a pause in seconds after each."""
    return [
        asyncio.create_task(one.ask("stream", other.name, 0, count, pause))
        for one, other in ((a, b), (b, a))
    ]


async def check(stream: "asyncio.Task[int]", count: int, to: Resident, sender: str) -> None:
    """Check that all numbers were accepted, and came once and in order."""
    assert await stream == count
    assert await to.ask("received", sender) == list(range(count))
