"""Messages as the application sees them, and verdicts on their way back."""

import pytest

from tests.face.support import (
    PRINTER,
    SOURCE,
    Verdicts,
    delivery_of,
    raw_delivery,
    record_of,
    short_of,
)
from zmesh.actions import Delivery
from zmesh.errors import AlreadySettled, ProtocolError
from zmesh.events import Source
from zmesh.face.received import Chunk, Message
from zmesh.face.verdicts import ACCEPTED_TOGETHER
from zmesh.message import Encoding, Kind, Outcome, Record, Tag, head
from zmesh.wire.bodies import encode_headers

ACCEPTED, REJECTED, RELEASED = Outcome.ACCEPTED, Outcome.REJECTED, Outcome.RELEASED


def message_of(record: Record) -> Message:
    verdicts = Verdicts()
    chunk = Chunk(verdicts.settlements, Delivery(SOURCE, "printer", 7, 7, [record]), 0, 1)
    return next(chunk.messages)


def test_message_shows_body_and_sender() -> None:
    message = message_of(record_of({"job": 7}))
    assert message.body == {"job": 7}
    assert message.body is message.body
    assert (message.sender, message.sender_id) == ("printer", PRINTER.hex())
    assert (message.priority, message.attempt, message.key) == (4, 1, None)
    assert message.headers == {}
    assert message.topic == ""


def test_message_shows_what_differs_from_the_default() -> None:
    extras = (Tag.HEADERS, encode_headers({"unit": "C"}), Tag.KEY, "user-7", Tag.ATTEMPT, 3)
    message = message_of((head(Kind.PUBLICATION), "a.b", b"raw", extras))
    assert message.body == b"raw"
    assert message.headers == {"unit": "C"}
    assert (message.key, message.attempt, message.topic) == ("user-7", 3, "a.b")
    assert repr(message) == "<Message from 'printer' on 'a.b', attempt 3>"


def test_malformed_body_raises_where_it_is_read() -> None:
    message = message_of((head(Kind.DIRECT, Encoding.MSGPACK), "", b"\xc1"))
    with pytest.raises(ProtocolError):
        _ = message.body


def test_reading_on_accepts_what_was_read_in_one_range() -> None:
    verdicts = Verdicts()
    chunk = Chunk(verdicts.settlements, raw_delivery(100, 5), 0, 5)
    for _ in range(3):
        chunk.current = next(chunk.messages)
    chunk.accept_read()
    assert verdicts.take() == [(100, 101, ACCEPTED)]
    chunk.current = next(chunk.messages)
    chunk.accept_read()
    chunk.accept_all()
    assert verdicts.take() == [(102, 104, ACCEPTED)]


async def test_message_settled_by_word_is_left_out_of_the_range() -> None:
    verdicts = Verdicts()
    chunk = Chunk(verdicts.settlements, raw_delivery(1, 6), 0, 6)
    messages = list(chunk.messages)
    chunk.current = messages[3]
    await messages[3].reject("no")
    await messages[1].release(delay=2.0)
    chunk.accept_all()
    assert sorted(verdicts.take()) == [
        (1, 1, ACCEPTED), (2, 2, RELEASED), (3, 3, ACCEPTED), (4, 4, REJECTED), (5, 6, ACCEPTED),
    ]  # fmt: skip


async def test_second_verdict_is_refused() -> None:
    verdicts = Verdicts()
    chunk = Chunk(verdicts.settlements, raw_delivery(1, 3), 0, 3)
    first, second, third = chunk.messages
    await first.accept()
    with pytest.raises(AlreadySettled):
        await first.accept()
    chunk.current = third
    chunk.accept_read()
    with pytest.raises(AlreadySettled):
        await second.reject("too late")
    assert verdicts.take() == [(1, 2, ACCEPTED)]


async def test_reason_and_delay_travel_with_the_verdict() -> None:
    verdicts = Verdicts()
    chunk = Chunk(verdicts.settlements, raw_delivery(1, 2), 0, 2)
    first, second = chunk.messages
    await first.reject("bad")
    await second.release(delay=1.5)
    rejected, released = verdicts.settlements.take()
    assert (rejected.outcome, rejected.reason) == (REJECTED, "bad")
    assert (released.outcome, released.delay) == (RELEASED, 1.5)


def test_record_of_several_numbers_is_settled_whole() -> None:
    verdicts = Verdicts()
    delivery = Delivery(SOURCE, "printer", 10, 14, [record_of(b"large")])
    Chunk(verdicts.settlements, delivery, 0, 1).accept_all()
    assert verdicts.take() == [(10, 14, ACCEPTED)]


def test_acceptances_merge_across_deliveries_of_one_source_only() -> None:
    verdicts = Verdicts()
    settle = verdicts.settlements.settle
    other = Source(PRINTER, SOURCE.session, 5)
    equal = Source(PRINTER, SOURCE.session, 4)
    settle(raw_delivery(1, 3), 0, 2, ACCEPTED)
    settle(raw_delivery(4, 2, equal), 0, 1, ACCEPTED)
    settle(raw_delivery(6, 1, other), 0, 0, ACCEPTED)
    settle(raw_delivery(7, 1, other), 0, 0, RELEASED)
    settle(raw_delivery(8, 1, other), 0, 0, ACCEPTED)
    settle(raw_delivery(10, 1, other), 0, 0, ACCEPTED)
    taken = verdicts.settlements.take()
    assert [short_of(verdict) for verdict in taken] == [
        (1, 5, ACCEPTED), (6, 6, ACCEPTED), (7, 7, RELEASED), (8, 8, ACCEPTED),
        (10, 10, ACCEPTED),
    ]  # fmt: skip
    assert not verdicts.settlements.pending


def test_rejections_do_not_merge() -> None:
    verdicts = Verdicts()
    verdicts.settlements.settle(raw_delivery(1, 1), 0, 0, REJECTED, "one")
    verdicts.settlements.settle(raw_delivery(2, 1), 0, 0, REJECTED, "two")
    assert [verdict.reason for verdict in verdicts.settlements.take()] == ["one", "two"]


def test_noted_chunk_is_settled_when_taken_and_noted_again_later() -> None:
    verdicts = Verdicts()
    chunk = Chunk(verdicts.settlements, raw_delivery(1, 4), 0, 4)
    chunk.current = next(chunk.messages)
    verdicts.settlements.note(chunk)
    assert (verdicts.later, verdicts.soon, chunk.noted) == (1, 0, True)
    chunk.current = next(chunk.messages)
    assert verdicts.take() == [(1, 1, ACCEPTED)]
    assert not chunk.noted
    assert verdicts.take() == []


def test_acceptances_wait_for_more_until_they_are_many() -> None:
    verdicts = Verdicts()
    verdicts.settlements.settle(raw_delivery(1, 1000), 0, ACCEPTED_TOGETHER - 2, ACCEPTED)
    assert (verdicts.later, verdicts.soon) == (1, 0)
    verdicts.settlements.settle(raw_delivery(2000, 1), 0, 0, ACCEPTED)
    assert (verdicts.later, verdicts.soon) == (1, 1)
    verdicts.take()
    verdicts.settlements.settle(raw_delivery(3000, 1), 0, 0, ACCEPTED)
    assert (verdicts.later, verdicts.soon) == (2, 1)


def test_what_is_not_accepted_waits_for_nothing() -> None:
    verdicts = Verdicts()
    verdicts.settlements.settle(raw_delivery(1, 1), 0, 0, RELEASED)
    assert (verdicts.later, verdicts.soon) == (0, 1)


def test_hurry_asks_only_where_a_verdict_waits() -> None:
    verdicts = Verdicts()
    verdicts.settlements.hurry()
    assert verdicts.now == 0
    verdicts.settlements.settle(delivery_of(1, ["x"]), 0, 0, ACCEPTED)
    verdicts.settlements.hurry()
    assert verdicts.now == 1
