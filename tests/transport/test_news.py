import asyncio

from zmesh.events import Event, InboundClosed, PathFull, PathUp, PathWritable
from zmesh.transport.news import News


async def test_later_waits_for_the_next_iteration_and_comes_together() -> None:
    told: list[list[Event]] = []
    news = News(asyncio.get_running_loop(), told.append)
    news.later(PathUp(1))
    news.later(PathUp(2))
    assert told == []
    await asyncio.sleep(0)
    assert told == [[PathUp(1), PathUp(2)]]


async def test_now_takes_along_what_waits_in_order() -> None:
    told: list[list[Event]] = []
    news = News(asyncio.get_running_loop(), told.append)
    news.later(PathFull(1))
    news.now(PathWritable(1))
    assert told == [[PathFull(1), PathWritable(1)]]
    news.now()
    await asyncio.sleep(0)
    assert len(told) == 1


async def test_what_happens_while_told_comes_in_the_next_iteration() -> None:
    told: list[list[Event]] = []

    def on_events(events: list[Event]) -> None:
        told.append(events)
        if len(told) == 1:
            news.later(InboundClosed())
            assert len(told) == 1

    news = News(asyncio.get_running_loop(), on_events)
    news.now(PathUp(1))
    await asyncio.sleep(0)
    assert told == [[PathUp(1)], [InboundClosed()]]


async def test_nothing_is_told_once_closed() -> None:
    told: list[list[Event]] = []
    news = News(asyncio.get_running_loop(), told.append)
    news.later(PathUp(1))
    news.close()
    news.later(PathUp(2))
    news.now(PathUp(3))
    await asyncio.sleep(0)
    assert told == []
