"""Posting: room, order, receipts, and what closing does to them."""

import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence

import pytest

from tests.face.test_runner import FakeApplication, FakeNetwork
from tests.sizes import total_size
from zmesh.actions import Action
from zmesh.errors import (
    Backpressure,
    BodyNotEncodable,
    Closed,
    PeerLost,
    PeersMissing,
    PeerUnknown,
    Rejected,
)
from zmesh.events import Event, Post, PostEach, Publish, PublishMany
from zmesh.face.outgoing import Outgoing
from zmesh.face.posting import BATCH_BYTES_MAX, BATCH_MAX, LARGE_BYTES, POSTS_MAX, Posting
from zmesh.face.receipts import Receipt
from zmesh.face.runner import Runner
from zmesh.ids import NodeId
from zmesh.message import Failure, FailureKind, Kind, Record, Ticket
from zmesh.options import NodeOptions

NODE = NodeId(b"printer-0123456!")
RECORD: Record = (0, "", b"x")
BYTES_MAX = 10 * 1024 * 1024


class FakeEngine:
    """One peer, with so much room."""

    def __init__(self) -> None:
        self.room_left = 1000
        self.queued_bytes = 123
        self.topic_room: int | None = None
        self.names: list[str] = []
        self.is_known = True
        self.events: list[Event] = []
        self.deadline: float | None = None

    def handle(self, events: Sequence[Event], now: float) -> list[Action]:  # noqa: ARG002
        self.events += events
        for event in events:
            if isinstance(event, Post | PostEach):
                self.room_left -= len(event.records)
                self.queued_bytes += total_size(event.records)
            elif isinstance(event, Publish | PublishMany) and self.topic_room is not None:
                self.topic_room -= len(event.records) if isinstance(event, PublishMany) else 1
        return []

    def resolve(self, to: str | NodeId) -> NodeId:
        if not self.is_known:
            raise PeerUnknown(str(to))
        return NODE

    def room(self, node: NodeId) -> int:
        assert node == NODE
        return self.room_left if self.queued_bytes < BYTES_MAX else 0

    def queued(self, node: NodeId) -> tuple[int, int]:
        assert node == NODE
        return (3, self.queued_bytes)

    def receivers(self, record: Record) -> list[str]:
        assert record[1] == "a.b"
        return self.names

    def room_to_publish(self, topic: str) -> int | None:
        assert topic == "a.b"
        return self.topic_room


class Bench:
    """Posting to the fake engine."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.engine = FakeEngine()
        self.runner = Runner(loop, self.engine, FakeApplication())
        self.runner.start(FakeNetwork())
        self.unheard: list[tuple[Failure, int]] = []
        self.posting = Posting(
            loop, self.engine, self.runner, BYTES_MAX, self._hear, lambda: "why not"
        )

    def _hear(self, failure: Failure, count: int) -> None:
        self.unheard.append((failure, count))

    async def post(self, record: Record = RECORD) -> Receipt:
        return await self.posting.post("printer", record, 4, None, None)

    async def post_many(self, bodies: Iterable[object]) -> Receipt:
        batch = Outgoing(NodeOptions()).batch(bodies, None)
        return await self.posting.post_many("printer", batch, 4, None, None)

    async def publish(self, lane: int = 4) -> Receipt:
        record: Record = (Kind.PUBLICATION, "a.b", b"x")
        return await self.posting.publish(record, lane, None, None)

    async def publish_many(self, bodies: Iterable[object]) -> Receipt:
        batch = Outgoing(NodeOptions()).batch(bodies, None, Kind.PUBLICATION, "a.b")
        return await self.posting.publish_many("a.b", batch, 4, None, None)

    def published(self) -> int:
        together = [event for event in self.engine.events if isinstance(event, PublishMany)]
        return sum(len(event.records) for event in together)

    def posts(self) -> list[Post]:
        """Return what was posted, each of those that went together by itself."""
        posts = []
        for event in self.engine.events:
            if isinstance(event, Post):
                posts.append(event)
            elif isinstance(event, PostEach):
                each = zip(event.records, event.tickets, event.keys, strict=True)
                posts += [
                    Post(event.to, event.lane, [record], ticket, key)
                    for record, ticket, key in each
                ]
        return posts

    def accept(self, ticket: Ticket, count: int = 1) -> None:
        ticket.accepted += count
        if ticket.done:
            self.posting.done([ticket])


@pytest.mark.parametrize("way", ["posted", "published"])
async def test_nothing_is_kept_of_a_message_that_left(way: str) -> None:
    bench = Bench()
    record: Record = (Kind.PUBLICATION, "a.b", b"x")
    before = sys.getrefcount(record)
    if way == "posted":
        await bench.posting.post("printer", record, 4, None, None)
    else:
        await bench.posting.publish(record, 4, None, None)
    bench.runner.flush()
    assert len(bench.engine.events) == 1
    bench.engine.events.clear()
    assert sys.getrefcount(record) == before


async def test_posts_to_one_peer_that_follow_each_other_are_one_command() -> None:
    bench = Bench()
    await bench.post()  # goes at once
    for key in ("a", None, "b"):
        bench.posting.post_nowait("printer", RECORD, 4, key, None)
    bench.posting.post_nowait("printer", RECORD, 5, None, None)
    bench.posting.post_nowait("printer", RECORD, 4, None, 60.0)
    bench.posting.post_nowait("printer", RECORD, 4, None, None)
    assert bench.runner.backlog == 6
    await turn()
    together = [
        (event.lane, event.keys) if isinstance(event, PostEach) else None
        for event in bench.engine.events[1:]
    ]
    assert together == [(4, ["a", None, "b"]), (5, [None]), None, (4, [None])]
    bench.runner.stop()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_post_is_given_to_the_engine_and_accepted_later() -> None:
    bench = Bench()
    receipt = await bench.post()
    [post] = bench.posts()
    assert (post.to, post.lane, post.records, post.ticket) == (NODE, 4, [RECORD], receipt)
    assert len(bench.posting) == 1
    bench.accept(receipt)
    assert await receipt == 1
    assert len(bench.posting) == 0
    bench.runner.stop()


async def test_unknown_peer_is_told_at_once() -> None:
    bench = Bench()
    bench.engine.is_known = False
    with pytest.raises(PeerUnknown, match=r"; why not$"):
        await bench.post()
    with pytest.raises(PeerUnknown):
        await bench.post_many([1])
    assert len(bench.posting) == 0
    bench.runner.stop()


async def test_posts_wait_for_room_in_their_order() -> None:
    bench = Bench()
    bench.engine.room_left = 0
    tasks = [asyncio.create_task(bench.post((0, str(number), b""))) for number in range(4)]
    await turn()
    assert bench.posts() == []
    bench.engine.room_left = 2
    bench.posting.peer_rooms.passed(NODE)
    await turn()
    bench.engine.room_left = 9
    bench.posting.peer_rooms.passed(NODE)
    await asyncio.wait(tasks)
    await turn()
    assert [post.records[0][1] for post in bench.posts()] == ["0", "1", "2", "3"]
    bench.runner.stop()


async def test_peer_that_leaves_ends_the_waiting() -> None:
    bench = Bench()
    bench.engine.room_left = 0
    task = asyncio.create_task(bench.post())
    await turn()
    bench.engine.is_known = False
    bench.posting.peer_rooms.gone(NODE)
    with pytest.raises(PeerUnknown):
        await task
    bench.runner.stop()


@pytest.mark.parametrize("is_many", [False, True])
async def test_waiter_that_fails_lets_the_next_one_go(is_many: bool) -> None:
    bench = Bench()
    bench.engine.room_left = 0
    failing = asyncio.create_task(bench.post_many([1]) if is_many else bench.post())
    next_one = asyncio.create_task(bench.post())
    await turn()
    bench.engine.is_known = False
    bench.engine.room_left = 1
    bench.posting.peer_rooms.passed(NODE)
    async with asyncio.timeout(5):
        for task in (failing, next_one):
            with pytest.raises(PeerUnknown):
                await task
    bench.runner.stop()


@pytest.mark.parametrize("is_many", [False, True])
async def test_waiter_is_told_of_closing_not_of_peers_that_are_gone(is_many: bool) -> None:
    bench = Bench()
    bench.engine.room_left = 0
    waiting = asyncio.create_task(bench.post_many([1]) if is_many else bench.post())
    await turn()
    bench.engine.is_known = False
    bench.posting.close("node")
    with pytest.raises(Closed):
        await waiting
    bench.runner.stop()


async def test_post_nowait_raises_where_there_is_no_room() -> None:
    bench = Bench()
    bench.engine.room_left = 3
    for _ in range(3):
        bench.posting.post_nowait("printer", RECORD, 4, None, None)
    with pytest.raises(Backpressure) as caught:
        bench.posting.post_nowait("printer", RECORD, 4, None, None)
    assert (caught.value.peer, caught.value.queued_bytes) == ("printer", 123 + 3 * 17)
    bench.runner.stop()


async def test_post_nowait_does_not_overtake_those_who_wait() -> None:
    bench = Bench()
    bench.engine.room_left = 0
    task = asyncio.create_task(bench.post())
    await turn()
    bench.engine.room_left = 1
    bench.posting.peer_rooms.passed(NODE)
    with pytest.raises(Backpressure):
        bench.posting.post_nowait("printer", RECORD, 4, None, None)
    await task
    bench.runner.stop()


async def test_loop_of_posts_lets_the_batch_go() -> None:
    bench = Bench()
    most = 0
    for _ in range(500):
        await bench.post()
        most = max(most, bench.runner.backlog)
    assert most < POSTS_MAX
    await turn()
    assert len(bench.posts()) == 500
    bench.runner.stop()


async def test_large_body_counts_before_the_next_post() -> None:
    bench = Bench()
    for _ in range(3):
        await bench.post((0, "", bytes(LARGE_BYTES)))
        assert bench.runner.backlog == 0
    bench.runner.stop()


async def test_large_posts_stop_where_the_bytes_are_full() -> None:
    bench = Bench()
    task = asyncio.create_task(_post_for_ever(bench, bytes(1024 * 1024)))
    async with asyncio.timeout(10):
        while len(bench.posts()) < 10:
            await turn()
    await turn()
    await turn()
    assert 10 <= len(bench.posts()) <= 11
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    bench.runner.stop()


async def _post_for_ever(bench: Bench, body: bytes) -> None:
    while True:
        await bench.post((0, "", body))


async def test_loop_of_large_posts_lets_others_have_their_turn() -> None:
    bench = Bench()
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(count)

    count()
    for _ in range(20):
        await bench.post((0, "", bytes(LARGE_BYTES)))
    assert turns >= 20
    bench.runner.stop()


async def test_post_many_goes_in_pieces_of_bytes_as_well() -> None:
    bench = Bench()
    bench.engine.room_left = 10**6
    bodies = [bytes(1024 * 1024)] * 8
    receipt = await bench.post_many(bodies)
    assert receipt.expected == 8
    sizes = [total_size(post.records) for post in bench.posts()]
    assert [len(post.records) for post in bench.posts()] == [4, 4]
    assert max(sizes) < BATCH_BYTES_MAX + len(bodies[0])
    bench.runner.stop()


async def test_post_many_never_passes_the_bytes_there_is_room_for_by_more_than_one() -> None:
    bench = Bench()
    bench.engine.room_left = 10**6
    bench.engine.queued_bytes = BYTES_MAX - 2000
    task = asyncio.create_task(bench.post_many([bytes(700)] * 100))
    await turn()
    assert [len(post.records) for post in bench.posts()] == [3]
    assert not task.done()
    bench.engine.queued_bytes = 0
    bench.posting.peer_rooms.passed(NODE)
    assert (await task).expected == 100
    assert [len(post.records) for post in bench.posts()] == [3, 97]
    bench.runner.stop()


async def test_post_many_that_fills_the_room_exactly_does_not_wait_for_more() -> None:
    bench = Bench()
    bench.engine.room_left = 3
    async with asyncio.timeout(1):
        receipt = await bench.post_many([1, 2, 3])
    assert receipt.expected == 3
    bench.runner.stop()


async def test_post_many_counts_posts_that_are_on_their_way() -> None:
    bench = Bench()
    bench.engine.room_left = 10
    for _ in range(5):
        bench.posting.post_nowait("printer", RECORD, 4, None, None)
    task = asyncio.create_task(bench.post_many(range(20)))
    await turn()
    assert sum(len(post.records) for post in bench.posts()) == 10
    bench.engine.room_left = 100
    bench.posting.peer_rooms.passed(NODE)
    await task
    bench.runner.stop()


async def test_cancelled_post_many_leaves_what_was_posted_to_its_outcome() -> None:
    bench = Bench()
    bench.engine.room_left = 2
    task = asyncio.create_task(bench.post_many(range(9)))
    await turn()
    task.cancel()
    await asyncio.wait([task])
    [post] = bench.posts()
    assert (post.ticket.expected, len(bench.posting)) == (2, 1)
    bench.accept(post.ticket, 2)
    assert len(bench.posting) == 0
    bench.runner.stop()


async def test_post_many_goes_in_pieces_under_one_receipt() -> None:
    bench = Bench()
    bench.engine.room_left = 10**6
    receipt = await bench.post_many(b"%d" % number for number in range(2 * BATCH_MAX + 10))
    await turn()
    assert [len(post.records) for post in bench.posts()] == [BATCH_MAX, BATCH_MAX, 10]
    assert {id(post.ticket) for post in bench.posts()} == {id(receipt)}
    assert receipt.expected == 2 * BATCH_MAX + 10
    bodies = [record[2] for post in bench.posts() for record in post.records]
    assert bodies == [b"%d" % number for number in range(2 * BATCH_MAX + 10)]
    bench.accept(receipt, receipt.expected)
    assert await receipt == 2 * BATCH_MAX + 10
    bench.runner.stop()


async def test_post_many_waits_for_room_piece_by_piece() -> None:
    bench = Bench()
    bench.engine.room_left = 3
    task = asyncio.create_task(bench.post_many(range(8)))
    await turn()
    assert [len(post.records) for post in bench.posts()] == [3]
    assert not task.done()
    bench.engine.room_left = 4
    bench.posting.peer_rooms.passed(NODE)
    await turn()
    assert [len(post.records) for post in bench.posts()] == [3, 4]
    bench.engine.room_left = 4
    bench.posting.peer_rooms.passed(NODE)
    receipt = await task
    assert receipt.expected == 8
    bench.runner.stop()


async def test_post_many_is_not_done_before_its_last_piece() -> None:
    bench = Bench()
    bench.engine.room_left = 2
    task = asyncio.create_task(bench.post_many(range(4)))
    await turn()
    ticket = bench.posts()[0].ticket
    bench.accept(ticket, 2)
    assert not ticket.done
    bench.engine.room_left = 3
    bench.posting.peer_rooms.passed(NODE)
    receipt = await task
    assert not receipt.done
    bench.accept(receipt, 2)
    assert await receipt == 4
    bench.runner.stop()


async def test_post_many_of_nothing_is_done() -> None:
    bench = Bench()
    assert await (await bench.post_many([])) == 0
    assert len(bench.posting) == 0
    bench.runner.stop()


async def test_body_that_cannot_be_sent_ends_post_many_without_a_leak() -> None:
    def bodies() -> Iterator[object]:
        yield from range(BATCH_MAX)
        yield object()

    bench = Bench()
    bench.engine.room_left = 10**6
    with pytest.raises(BodyNotEncodable):
        await bench.post_many(bodies())
    [post] = bench.posts()
    assert post.ticket.expected == BATCH_MAX
    bench.accept(post.ticket, BATCH_MAX)
    assert len(bench.posting) == 0
    bench.runner.stop()


async def test_publishing_waits_for_the_fullest_subscriber() -> None:
    bench = Bench()
    bench.engine.topic_room = 1
    await bench.publish()
    task = asyncio.create_task(bench.publish())
    await turn()
    assert len(bench.engine.events) == 1
    bench.engine.topic_room = 1
    bench.posting.topic_rooms.passed_all()
    await task
    await turn()
    assert len(bench.engine.events) == 2
    bench.runner.stop()


async def test_publications_gathered_in_one_turn_do_not_pass_the_room() -> None:
    bench = Bench()
    bench.engine.topic_room = 5
    task = asyncio.create_task(_publish_many(bench, 20))
    await turn()
    assert bench.published() == 5
    assert not task.done()
    bench.engine.topic_room = 100
    bench.posting.topic_rooms.passed_all()
    await task
    await turn()
    assert bench.published() == 20
    bench.runner.stop()


async def test_publications_of_one_turn_go_together_as_long_as_they_are_alike() -> None:
    bench = Bench()
    await bench.publish()  # the first goes at once
    lanes = (4, 4, 4, 7, 4)
    receipts = [await bench.publish(lane) for lane in lanes]
    await turn()
    together = [event for event in bench.engine.events if isinstance(event, PublishMany)]
    assert [(event.lane, len(event.records)) for event in together] == [
        (4, 1), (4, 3), (7, 1), (4, 1),
    ]  # fmt: skip
    assert [ticket for event in together[1:] for ticket in event.tickets] == receipts
    bench.runner.stop()


async def test_what_comes_between_publications_keeps_its_place() -> None:
    bench = Bench()
    await bench.publish()
    await bench.publish()
    await bench.post()
    await bench.publish()
    await turn()
    kinds = [type(event) for event in bench.engine.events]
    assert kinds == [PublishMany, PublishMany, PostEach, PublishMany]
    bench.runner.stop()


async def test_many_are_published_as_room_is_made_for_them() -> None:
    bench = Bench()
    bench.engine.topic_room = 3
    task = asyncio.create_task(bench.publish_many(range(5)))
    await turn()
    assert bench.published() == 3
    bench.engine.topic_room = 10
    bench.posting.topic_rooms.passed_all()
    receipt = await task
    assert bench.published() == 5
    assert not receipt.done
    bench.accept(receipt, 5)
    assert await receipt == 5
    bench.runner.stop()


async def test_publishing_many_of_nothing_is_done() -> None:
    bench = Bench()
    assert await (await bench.publish_many([])) == 0
    assert len(bench.posting) == 0
    bench.runner.stop()


async def test_body_that_cannot_be_published_leaves_those_before_it_their_receipt() -> None:
    def bodies() -> Iterator[object]:
        yield from range(BATCH_MAX)
        yield object()

    bench = Bench()
    with pytest.raises(BodyNotEncodable):
        await bench.publish_many(bodies())
    [receipt] = bench.posting._open
    assert receipt.expected == BATCH_MAX
    bench.accept(receipt, BATCH_MAX)
    assert len(bench.posting) == 0
    bench.runner.stop()


async def _publish_many(bench: Bench, count: int) -> None:
    for _ in range(count):
        await bench.publish()


async def test_flush_waits_for_what_was_posted_so_far() -> None:
    bench = Bench()
    first, second = await bench.post(), await bench.post()
    task = asyncio.create_task(bench.posting.flush())
    await turn()
    third = await bench.post()
    bench.accept(second)
    first.fail(Failure(FailureKind.REJECTED, "printer", "no"))
    await turn()
    assert not task.done()
    bench.posting.done([first])
    await task
    assert not third.done
    with pytest.raises(Rejected):
        await first
    bench.runner.stop()


async def test_failure_is_told_where_nobody_awaits_the_receipt() -> None:
    bench = Bench()
    awaited, forgotten = await bench.post(), await bench.post_many([1, 2])
    task = asyncio.ensure_future(awaited)
    await turn()
    lost = Failure(FailureKind.PEER_LOST, "printer", "refused")
    awaited.fail(lost)
    forgotten.fail(lost)
    forgotten.fail(Failure(FailureKind.PEER_LOST, "printer", "refused"))
    bench.posting.done([awaited, forgotten])
    assert bench.unheard == [(lost, 2)]
    with pytest.raises(PeerLost):
        await task
    bench.runner.stop()


async def test_closing_fails_what_is_open_and_what_waits() -> None:
    bench = Bench()
    receipt = await bench.post()
    many = await bench.post_many([1, 2, 3])
    bench.engine.room_left = 0
    waiting = asyncio.create_task(bench.post())
    await turn()
    bench.posting.close("node")
    for each in (receipt, many):
        with pytest.raises(Closed):
            await each
    assert len(many.failures) == 3
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        await bench.post()
    bench.runner.stop()


# Receivers

PUBLICATION: Record = (4, "a.b", b"x")


async def test_receivers_are_waited_for() -> None:
    bench = Bench()
    waiting = asyncio.create_task(bench.posting.wait_for_receivers(PUBLICATION, 2, 10.0))
    for names in (["one"], ["one", "two"]):
        await turn()
        assert not waiting.done()
        bench.engine.names = names
        bench.posting.receivers_changed()
    await waiting
    await bench.posting.wait_for_receivers(PUBLICATION, 2, None)
    bench.runner.stop()


async def test_too_few_receivers_in_time_are_named() -> None:
    bench = Bench()
    bench.engine.names = ["one"]
    with pytest.raises(PeersMissing, match=r"2 receivers of 'a\.b' within 0\.01 s.*one"):
        await bench.posting.wait_for_receivers(PUBLICATION, 2, 0.01)
    assert not bench.posting._watchers
    bench.runner.stop()


async def test_closing_ends_the_wait_for_receivers() -> None:
    bench = Bench()
    waiting = asyncio.create_task(bench.posting.wait_for_receivers(PUBLICATION, 1, None))
    await turn()
    bench.posting.close("node")
    with pytest.raises(Closed):
        await waiting
    bench.runner.stop()
