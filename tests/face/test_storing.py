"""A journal and the loop: in which order answers come, and who waits for room."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from zmesh.actions import WriteJournal
from zmesh.events import Event, JournalTold
from zmesh.face.storing import Storing
from zmesh.options import KIB, JournalOptions, Storage
from zmesh.security.node_key import NodeKey
from zmesh.storage import (
    Batch,
    DropOldest,
    JournalEvent,
    Refused,
    Room,
    Row,
    Store,
    Stream,
    StreamKind,
    Written,
)

SMALL = JournalOptions(
    journal_bytes_max=512 * KIB, reserve_bytes_min=256 * KIB, wal_bytes_max=128 * KIB,
    vacuum_bytes_min=16 * KIB,
)  # fmt: skip
LOG = Stream(StreamKind.TOPIC)


@asynccontextmanager
async def opened(
    path: Path, told: list[JournalEvent], later: list[JournalEvent] | None = None
) -> AsyncIterator[Storing]:
    """Give a journal that tells its news, and those of batches that somebody was let go of."""

    def pass_on(into: list[JournalEvent], events: Sequence[Event]) -> None:
        for event in events:
            assert isinstance(event, JournalTold)
            into.extend(event.events)

    def let_go(batches: Iterable[int]) -> bool:
        return later is not None and 1 in batches

    storing = Storing(Storage(path, options=SMALL), NodeKey.of(bytes(32)))
    await storing.open()
    storing.start(
        partial(pass_on, told), partial(pass_on, told if later is None else later), let_go
    )
    try:
        yield storing
    finally:
        await storing.close()


def stored(ticket: int, size: int) -> WriteJournal:
    row = Row(ticket, (0, "t", bytes(size)), 0, 0, 0, ticket, (0,))
    return WriteJournal(Batch(ticket, (Store(LOG, [row]),)))


async def test_what_is_refused_is_told_after_what_was_ordered_before(tmp_path: Path) -> None:
    told: list[JournalEvent] = []
    async with opened(tmp_path / "a.journal", told) as storing:
        storing.perform(stored(1, 100))
        storing.perform(stored(2, 600 * KIB))
        storing.perform(stored(3, 100))
        storing.perform(stored(4, 600 * KIB))
        await storing.quiet()
    answers = [
        (type(event), ticket)
        for event in told
        if isinstance(event, Written | Refused)
        for ticket in event.tickets
    ]
    assert answers == [(Written, 1), (Refused, 2), (Written, 3), (Refused, 4)]


async def test_what_nobody_waits_for_any_more_is_told_with_what_comes_next(tmp_path: Path) -> None:
    told: list[JournalEvent] = []
    later: list[JournalEvent] = []
    async with opened(tmp_path / "a.journal", told, later) as storing:
        for number in (1, 2):  # of the first somebody is let go
            storing.perform(stored(number, 100))
            await storing.quiet()
        storing.perform(stored(3, 600 * KIB))
        await storing.quiet()
    assert later == [Written((1,))]
    assert told[0] == Written((2,))
    assert isinstance(told[1], Refused)


async def test_who_is_about_to_wait_for_room_does_not_miss_it(tmp_path: Path) -> None:
    told: list[JournalEvent] = []
    async with opened(tmp_path / "a.journal", told) as storing, asyncio.timeout(10):
        before = storing.rooms
        storing.perform(stored(1, 300 * KIB))
        storing.perform(stored(2, 300 * KIB))  # refused, as the first is on its way
        await storing.quiet()
        storing.perform(WriteJournal(Batch(3, (DropOldest(LOG, 300 * KIB),))))
        await storing.quiet()
        while not any(isinstance(event, Room) for event in told):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await storing.room(before)
