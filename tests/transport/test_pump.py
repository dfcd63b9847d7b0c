"""The readiness pump against a real socket pair.

Over inproc, where a message is there when `send` returns: signals are the same as over TCP, and no
test has to wait for the network.
"""

import asyncio
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
import zmq.utils.garbage

from tests.transport.peer import options
from zmesh.ids import Path
from zmesh.options import WireLimits
from zmesh.transport.counters import Counters
from zmesh.transport.outcasts import Outcasts
from zmesh.transport.pump import (
    REFUSED_FULL,
    REFUSED_UNROUTABLE,
    UNCOPIED_BYTES,
    Intake,
    Packets,
    lending,
    push,
)


class Pair:
    """A ROUTER and a DEALER connected with each other."""

    count = 0

    def __init__(self) -> None:
        Pair.count += 1
        address = self.address = f"inproc://pair-{Pair.count}"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.context.set(zmq.BLOCKY, 0)
        self.router = self.context.socket(zmq.ROUTER)
        self.router.set(zmq.ROUTER_MANDATORY, 1)
        self.router.bind(address)
        self.dealer = self.context.socket(zmq.DEALER)
        self.dealer.connect(address)
        self.dealer.send(b"hello")
        self.routing_id = self.router.recv_multipart()[0]


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.context.destroy()


class Reader:
    """An intake on the DEALER, and the batches it delivered."""

    def __init__(self, pair: Pair, **changes: Any) -> None:
        self.batches: list[Packets] = []
        self.rooms = 0
        self.counters = Counters()
        self.intake = Intake(
            asyncio.get_running_loop(),
            pair.dealer,
            1,
            options(**changes),
            WireLimits(),
            self.counters,
            deliver=self.batches.append,
            on_room=self._on_room,
        )

    def _on_room(self) -> None:
        self.rooms += 1

    async def received(self, count: int) -> list[bytes]:
        for _ in range(2 * count + 2):  # iterations of the loop, each with a turn of the socket
            if sum(map(len, self.batches)) >= count:
                break
            await asyncio.sleep(0)
        return [parts[0] for batch in self.batches for _, parts in batch]


def fill(pair: Pair, count: int) -> None:
    """Let `count` messages to the DEALER wait unread."""
    for number in range(count):
        pair.router.send_multipart([pair.routing_id, b"%d" % number])


async def test_one_wake_up_delivers_all_that_waits_in_one_batch(pair: Pair) -> None:
    fill(pair, 15)
    reader = Reader(pair)
    assert await reader.received(15) == [b"%d" % number for number in range(15)]
    assert len(reader.batches) == 1
    reader.intake.close()


async def test_a_turn_takes_no_more_packets_than_its_budget_and_goes_on(pair: Pair) -> None:
    fill(pair, 170)
    reader = Reader(pair, turn_packets_max=64, turn_max=60.0)
    assert await reader.received(170) == [b"%d" % number for number in range(170)]
    # It begins with little: what it costs is not known yet.
    assert [len(batch) for batch in reader.batches] == [4, 8, 16, 32, 64, 46]
    reader.intake.close()


async def test_a_turn_takes_no_more_bytes_than_its_budget_and_one_packet(pair: Pair) -> None:
    for _ in range(10):
        pair.router.send_multipart([pair.routing_id, bytes(600), bytes(400)])
    reader = Reader(pair, turn_bytes_max=16 * 2500, turn_max=1e-9)
    await reader.received(10)
    # Each took too long, so that the next was smaller.
    assert [len(batch) for batch in reader.batches] == [3, 2, 1, 1, 1, 1, 1]
    assert reader.counters.bytes_received == 10_000
    assert reader.counters.packets_received == 10
    reader.intake.close()


async def test_two_busy_sockets_take_turns(pair: Pair) -> None:
    other = Pair()
    fill(pair, 100)
    fill(other, 100)
    order: list[str] = []
    readers = [Reader(each, turn_packets_max=10) for each in (pair, other)]
    for name, reader in zip("ab", readers, strict=True):
        reader.batches = _Noting(order, name)
        reader.intake._deliver = reader.batches.append
    for reader in readers:
        await reader.received(100)
        reader.intake.close()
    assert order[:8] in (list("abababab"), list("babababa"))
    other.context.destroy()


class _Noting(list[Packets]):
    def __init__(self, order: list[str], name: str) -> None:
        self.order, self.name = order, name

    def append(self, batch: Packets) -> None:
        super().append(batch)
        self.order.append(self.name)


async def test_what_a_send_swallowed_the_signal_of_is_read_after_a_look(pair: Pair) -> None:
    reader = Reader(pair)
    for number in range(300):
        pair.router.send_multipart([pair.routing_id, b"%d" % number])
        pair.dealer.get(zmq.EVENTS)  # takes the signal, as a send may
        reader.intake.look()
        assert reader.batches == [[(1, [b"%d" % other])] for other in range(number)]
        await asyncio.sleep(0)
        assert len(reader.batches) == number + 1
    reader.intake.close()


async def test_what_nobody_looked_for_is_rescued(pair: Pair) -> None:
    reader = Reader(pair)
    pair.router.send_multipart([pair.routing_id, b"stuck"])
    pair.dealer.get(zmq.EVENTS)
    await asyncio.sleep(0.05)
    assert reader.batches == []
    assert reader.intake.rescue()
    assert not reader.intake.rescue()  # it is planned
    assert await reader.received(1) == [b"stuck"]
    assert not reader.intake.rescue()
    reader.intake.close()


async def test_what_the_loop_is_about_to_hear_of_needs_no_rescue(pair: Pair) -> None:
    reader = Reader(pair)
    await asyncio.sleep(0)
    pair.router.send_multipart([pair.routing_id, b"on its way"])
    assert not reader.intake.rescue()
    assert await reader.received(1) == [b"on its way"]
    reader.intake.close()


async def test_draining_ignores_the_budget(pair: Pair) -> None:
    reader = Reader(pair, turn_packets_max=10)
    await asyncio.sleep(0)
    fill(pair, 55)
    assert reader.intake.drain() == [(1, [b"%d" % number]) for number in range(55)]
    reader.intake.close()


async def test_nothing_is_read_once_closed(pair: Pair) -> None:
    fill(pair, 50)
    reader = Reader(pair, turn_packets_max=160)
    await asyncio.sleep(0)
    reader.intake.close()
    await asyncio.sleep(0.05)
    assert len(reader.batches) == 1
    assert pair.dealer.recv() == b"10"


def test_push_tells_where_it_stopped_and_why(pair: Pair) -> None:
    counters = Counters()
    assert push(pair.router, pair.routing_id, [[b"a"], [b"bc", b"d"]], counters) == 0
    assert push(pair.router, b"nobody", [[b"lost"]], counters) == REFUSED_UNROUTABLE
    assert (counters.packets_sent, counters.bytes_sent) == (2, 4)
    stuck = pair.context.socket(zmq.DEALER)
    stuck.set(zmq.SNDHWM, 3)
    stuck.connect("tcp://127.0.0.1:1")
    assert push(stuck, None, [[b"x", b"y"]] * 5, counters) == REFUSED_FULL
    assert counters.packets_sent == 5
    stuck.close()


class Body(bytearray):
    """Tells when it is gone."""


def test_large_parts_are_lent_until_they_are_read_and_others_are_copied(pair: Pair) -> None:
    gone = {size: threading.Event() for size in (UNCOPIED_BYTES, UNCOPIED_BYTES - 1)}
    parts: list[bytes | memoryview] = [b"head"]
    for size, event in gone.items():
        body = Body(b"x" * size)
        weakref.finalize(body, event.set)
        parts.append(memoryview(body))
    del body
    assert push(pair.router, pair.routing_id, [parts], Counters()) == 0
    parts.clear()
    assert [event.is_set() for event in gone.values()] == [False, True]
    assert pair.dealer.recv_multipart() == [b"head", *(b"x" * size for size in gone)]
    assert gone[UNCOPIED_BYTES].wait(5.0)


class Signaled(BaseException):
    """What a signal handler raises."""


def test_nothing_is_lent_any_more_once_lending_was_interrupted(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> int:
        raise Signaled

    monkeypatch.setattr(lending, "is_safe", True)
    with monkeypatch.context() as patch:
        patch.setattr(zmq.utils.garbage.gc, "store", interrupt)
        with pytest.raises(Signaled):
            push(pair.router, pair.routing_id, [[bytes(UNCOPIED_BYTES)]], Counters())
    gone = threading.Event()
    body = Body(UNCOPIED_BYTES)
    weakref.finalize(body, gone.set)
    # The message that was interrupted has begun, and ends with the next.
    assert push(pair.router, None, [[memoryview(body)]], Counters()) == 0
    del body
    assert gone.is_set()
    assert pair.dealer.recv_multipart() == [bytes(UNCOPIED_BYTES)]


def test_large_parts_are_copied_where_pyzmq_lends_nothing_any_more(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("zmq gc socket requested during shutdown")

    monkeypatch.setattr(lending, "is_safe", True)
    monkeypatch.setattr(zmq.utils.garbage.gc, "store", refuse)
    large = bytes(UNCOPIED_BYTES)
    assert push(pair.router, pair.routing_id, [[b"head", large, large]], Counters()) == 0
    assert pair.dealer.recv_multipart() == [b"head", large, large]


async def test_room_that_was_awaited_is_told_once(pair: Pair) -> None:
    reader = Reader(pair)
    reader.intake.await_room()
    assert not reader.intake.rescue()
    assert reader.rooms == 1
    reader.intake.rescue()
    assert reader.rooms == 1
    reader.intake.close()


class Interrupted(zmq.Socket[bytes]):
    """A socket whose next receive but `left` is interrupted after it took its part."""

    left = -1

    def recv(self, *arguments: Any, **keywords: Any) -> Any:
        part = super().recv(*arguments, **keywords)
        object.__setattr__(self, "left", self.left - 1)
        if self.left == -1:
            raise KeyboardInterrupt
        return part


@pytest.mark.parametrize("left", range(4))
async def test_an_interrupted_message_is_skipped_and_the_next_is_read_whole(
    pair: Pair, left: int
) -> None:
    socket = pair.context.socket(zmq.ROUTER, socket_class=Interrupted)
    socket.bind(f"inproc://interrupted-{left}")
    sender = pair.context.socket(zmq.DEALER)
    sender.connect(f"inproc://interrupted-{left}")
    pair.dealer.close()
    pair.dealer = socket
    reader = Reader(pair)
    reader.intake._path = None
    object.__setattr__(socket, "left", left)
    sender.send_multipart([b"a", b"b", b"c"])
    with pytest.raises(KeyboardInterrupt):
        reader.intake.drain()
    sender.send_multipart([b"d", b"e"])
    assert [parts for _, parts in reader.intake.drain()] == [[b"d", b"e"]]
    reader.intake.close()
    sender.close()


async def test_a_message_of_thousands_of_parts_is_read_in_many_turns(pair: Pair) -> None:
    reader = Reader(pair, turn_packets_max=100)
    pair.router.send_multipart([pair.routing_id, *[b"x"] * 5000])
    pair.router.send_multipart([pair.routing_id, b"next"])
    turns = 0
    async with asyncio.timeout(10):
        while len(reader.batches) < 2:
            turns += 1
            await asyncio.sleep(0)
    [[(_, parts)], [(_, following)]] = reader.batches
    assert len(parts) == WireLimits().parts_max + 1
    assert following == [b"next"]
    assert turns >= 5000 // 100
    assert reader.counters.bytes_received == 5000 + len(b"next")
    reader.intake.close()


async def test_of_an_outcast_nothing_is_delivered_and_others_are_heard_between(pair: Pair) -> None:
    other = pair.context.socket(zmq.DEALER)
    other.connect(pair.address)
    other.send(b"hello")
    pair.router.recv_multipart()
    outcasts = Outcasts(4, lambda: 0.0, is_guarded=False)
    told: list[Path] = []
    delivered: Packets = []
    counters = Counters()
    intake = Intake(
        asyncio.get_running_loop(), pair.router, None, options(turn_packets_max=100),
        WireLimits(), counters, deliver=delivered.extend, outcasts=outcasts,
        on_outcast=lambda path, _: told.append(path),
    )  # fmt: skip
    outcasts.add(pair.routing_id, 15.0)
    for number in range(10):
        pair.dealer.send_multipart([b"x"] * 2000)
        pair.dealer.send(b"x")
        other.send(b"%d" % number)
    turns = 0
    async with asyncio.timeout(10):
        while len(delivered) < 10:
            turns += 1
            await asyncio.sleep(0)
    assert [parts for _, parts in delivered] == [[b"%d" % number] for number in range(10)]
    assert turns > 20  # each message is skipped in many
    assert set(told) == {pair.routing_id}
    assert counters.packets_ignored >= 15
    intake.close()
    other.close()
