"""The way to this node itself."""

import pytest

from zmesh.core.loopback import Loopback
from zmesh.errors import BodyTooLarge
from zmesh.ids import SessionId
from zmesh.message import Kind, Outcome, Record, Tag, Ticket, extra, head
from zmesh.options import LinkOptions
from zmesh.reliable.link_events import Accepted, Arrived, Returned, Room

SESSION = SessionId(b"s" * 16)


def record(body: bytes = b"x") -> Record:
    return (head(Kind.DIRECT), "", body)


def test_what_is_submitted_has_arrived() -> None:
    loopback = Loopback(SESSION, LinkOptions())
    records = [record(b"1"), record(b"2")]
    first, last = loopback.submit(4, records, Ticket(2), 0.0)
    assert loopback.take_events() == [Arrived(4, first, last, records)]
    assert loopback.take_events() == []
    assert loopback.queued_messages == 2
    assert loopback.queued_bytes == 34


def test_outcomes_come_back_per_record() -> None:
    loopback = Loopback(SESSION, LinkOptions())
    ticket = Ticket(3)
    first, last = loopback.submit(4, [record()] * 3, ticket, 0.0)
    loopback.take_events()
    assert loopback.settle(SESSION, 4, first, first + 1, Outcome.ACCEPTED, 0.0)
    assert loopback.settle(SESSION, 4, last, last, Outcome.REJECTED, 0.0, "no")
    assert not loopback.settle(SESSION, 4, first, last, Outcome.ACCEPTED, 0.0)
    assert loopback.take_events() == [
        Accepted([ticket, ticket]),
        Returned(record(), ticket, 4, Outcome.REJECTED, "no", 0.0, transmitted=True),
    ]
    assert ticket.accepted == 2
    assert (loopback.queued_messages, loopback.queued_bytes) == (0, 0)


def test_another_session_or_lane_settles_nothing() -> None:
    loopback = Loopback(SESSION, LinkOptions())
    first, last = loopback.submit(4, [record()], Ticket(), 0.0)
    assert not loopback.settle(b"other", 4, first, last, Outcome.ACCEPTED, 0.0)
    assert not loopback.settle(SESSION, 5, first, last, Outcome.ACCEPTED, 0.0)
    assert loopback.queued_messages == 1


def test_its_queue_is_bounded_as_a_links_and_tells_of_room() -> None:
    loopback = Loopback(SESSION, LinkOptions(queued_messages_max=2, queued_bytes_max=1000))
    first, _ = loopback.submit(4, [record(), record()], Ticket(2), 0.0)
    assert loopback.room_messages == 0
    loopback.take_events()
    loopback.settle(SESSION, 4, first, first, Outcome.ACCEPTED, 0.0)
    assert [type(event) for event in loopback.take_events()] == [Accepted, Room]
    loopback.submit(4, [record(b"x" * 990)], Ticket(), 0.0)
    assert loopback.room_messages == 0


def test_a_body_over_the_limit_is_refused_as_by_a_link() -> None:
    loopback = Loopback(SESSION, LinkOptions(body_bytes_max=10))
    with pytest.raises(BodyTooLarge):
        loopback.submit(4, [record(b"x" * 11)], Ticket(), 0.0)
    assert loopback.take_events() == []


def test_what_arrived_cannot_be_withdrawn_and_closing_returns_it() -> None:
    loopback = Loopback(SESSION, LinkOptions())
    ticket = Ticket()
    loopback.submit(4, [record()], ticket, 0.0)
    loopback.withdraw(ticket)
    assert loopback.queued_messages == 1
    assert loopback.close() == [(record(), ticket)]
    assert (loopback.queued_messages, loopback.queued_bytes) == (0, 0)


def test_key_and_time_to_live_arrive_as_they_do_over_a_link() -> None:
    loopback = Loopback(SESSION, LinkOptions())
    ticket = Ticket()
    first, _ = loopback.submit(4, [record()], ticket, 0.0, key="k", ttl=1.5)
    (arrived,) = loopback.take_events()
    assert isinstance(arrived, Arrived)
    assert extra(arrived.records[0], Tag.KEY) == "k"
    assert extra(arrived.records[0], Tag.TTL_MS) == 1500
    loopback.settle(SESSION, 4, first, first, Outcome.RELEASED, 0.0)
    assert loopback.queued_bytes == 0
