"""Readers of a log: bounded, in order, live at its end; and what peers may ask of them."""

import json
from typing import Any

import pytest

from zmesh.actions import ReadJournal, WriteJournal
from zmesh.core.guard import Guard
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer, Peers
from zmesh.core.turn import Turn
from zmesh.events import Publish
from zmesh.ids import JournalId, NodeId, SessionId
from zmesh.message import InterestKind, Kind, Outcome, Record, Tag, Ticket, extra, head
from zmesh.options import NodeOptions, Retention
from zmesh.patterns.durable_topics import DurableTopics
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.publish_subscribe import PublishSubscribe
from zmesh.reliable.link_events import Accepted, Arrived
from zmesh.storage import (
    Answered,
    Forget,
    Identity,
    Opened,
    RowsRead,
    Store,
    StoredRow,
    Written,
)
from zmesh.wire.bodies import body_of
from zmesh.wire.frames import Interest

OPTIONS = NodeOptions(log_readers_max=3, log_reader_messages=10)
OPENED = Opened(Identity(NodeId(b"shop" * 4), b"", JournalId(b"j" * 16), 1), (), True, None)


class Shop:
    """A publisher without links: a peer's carrier keeps what it was sent."""

    def __init__(self, retention: Retention = Retention()) -> None:  # noqa: B008
        session = SessionId(b"s" * 16)
        local = Peer(NodeId(b"shop" * 4), "shop", Loopback(session, OPTIONS.link))
        self.turn = Turn(Peers(local, OPTIONS), OPTIONS.link, 0.0, OPENED)
        self.interest = InterestTable(
            self.turn, OPTIONS, lambda *_: None, Guard(self.turn, None, OPTIONS.trust)
        )
        self.publishing = PublishSubscribe(self.turn, self.interest, OPTIONS)
        self.topics = DurableTopics(self.turn, self.interest, self.publishing, OPTIONS, retention)
        self.peer = Peer(NodeId(b"till" * 4), "till", Loopback(session, OPTIONS.link))
        self.peer.session = session
        self.rows: dict[int, StoredRow] = {}

    def settle_down(self) -> None:
        """Let the journal do what it is told, and patterns go on, until all is quiet."""
        while True:
            self.publishing.flush()
            self.topics.flush()
            actions = self.turn.keeper.take_actions()
            if not actions:
                return
            for action in actions:
                if isinstance(action, WriteJournal):
                    self._write(action)
                elif isinstance(action, ReadJournal):
                    self._read(action)

    def _write(self, action: WriteJournal) -> None:
        for command in action.batch.commands:
            if isinstance(command, Store):
                self.rows |= {row.position: StoredRow(row, 0) for row in command.rows}
            elif isinstance(command, Forget):
                for first, last in command.ranges:
                    for position in range(first, last + 1):
                        del self.rows[position]
        self.turn.keeper.on_told(Written((action.batch.ticket,)))

    def _read(self, action: ReadJournal) -> None:
        after: int = action.question.after  # type: ignore[union-attr, assignment]
        count: int = action.question.count_max  # type: ignore[union-attr]
        rows = [self.rows[at] for at in sorted(self.rows) if at > after]
        answer = RowsRead(rows[:count], len(rows) <= count)
        self.turn.keeper.on_told(Answered(action.ticket, answer))

    def publish(self, *numbers: int, topic: str = "a.b", lane: int = 4) -> Ticket:
        for number in numbers:
            ticket = Ticket()
            record: Record = (head(Kind.PUBLICATION), topic, str(number).encode())
            self.topics.on_publish(Publish(record, lane, ticket, durable=True, wall_ms=number))
        self.settle_down()
        return ticket

    def told(self, *added: tuple[str, str], removed: tuple[tuple[str, str], ...] = ()) -> None:
        self.interest.on_interest(self.peer, Interest(added, removed))
        self.settle_down()

    def sent(self) -> list[tuple[int, Record]]:
        """Return what the peer was sent since the last call, with its lanes and numbers."""
        found = []
        for event in self.peer.carrier.take_events():
            if isinstance(event, Arrived):
                found += [
                    (event.lane << 32 | seq, record)
                    for seq, record in enumerate(event.records, event.first_seq)
                ]
        return found

    def accept(self, sent: list[tuple[int, Record]]) -> None:
        session = self.peer.session
        assert session is not None
        for place, _ in sent:
            lane, seq = place >> 32, place & 0xFFFFFFFF
            self.peer.carrier.settle(session, lane, seq, seq, Outcome.ACCEPTED, 0.0)
        for event in self.peer.carrier.take_events():
            if isinstance(event, Accepted):
                self.turn.note_accepted(event.tickets)
        self.settle_down()


def follow(number: int, since: Any, pattern: str = "a.>", **members: Any) -> tuple[str, str]:
    text = json.dumps([number, pattern, {**members, "since": since}])
    return (InterestKind.LOG.value, text)


def bodies(sent: list[tuple[int, Record]]) -> list[int]:
    return [int(bytes(each[2])) for _, each in sent if each[0] & 15 == Kind.PUBLICATION]


def passed(sent: list[tuple[int, Record]]) -> list[Any]:
    return [body_of(each) for _, each in sent if each[1] == "passed"]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "nothing", "[1, 2]", '[1, "a.b", {}]', '[1, "a.b", {"since": "last"}]',
        '[1, "a.b", {"since": {"after": -1}}]', '[1, "a.b", {"since": {"after": "x"}}]',
        '[1, "a.b", {"since": {"after": -1, "ms": 1, "but": 7}}]',
        '[1, "a.b", {"since": {"ms": null}}]', '[1, "a..b", {"since": "first"}]',
        '[-1, "a.b", {"since": "first"}]', '[1, "a.b", {"since": {"after": 1, "but": [[1]]}}]',
        '[1, "a.b", {"since": {"after": 1, "but": 7}}]', '[0, ">", {"lanes": []}]',
        '[0, ">", {"lanes": [[4, "x"]]}]', '[0, ">", {"lanes": {"4": 1}}]', '[0, ">", 1]',
        '[1, "a.b", {"since": "first", "where": 7}]', "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_not_valid_is_refused(text: str) -> None:
    shop = Shop()
    shop.publish(1)
    shop.told((InterestKind.LOG.value, text))
    assert len(shop.topics.readers) == 0
    assert shop.topics.readers.refused == 1
    assert shop.sent() == []
    shop.told(removed=((InterestKind.LOG.value, text),))


def test_one_peer_has_a_bounded_number_of_readers() -> None:
    shop = Shop()
    shop.told(*(follow(number, "first") for number in range(1, 6)))
    assert len(shop.topics.readers) == 3
    assert shop.topics.readers.refused == 2
    shop.told(removed=(follow(1, "first"),))
    shop.told(follow(6, "first"))
    assert len(shop.topics.readers) == 3


def test_a_reader_has_a_window_and_goes_on_in_order() -> None:
    shop = Shop()
    shop.publish(*range(25))
    shop.told(follow(1, "first"))
    seen: list[int] = []
    for count in (10, 10, 5):
        sent = shop.sent()
        assert len(bodies(sent)) == count
        seen += bodies(sent)
        shop.accept(sent)
    assert seen == list(range(25))


def test_who_is_at_the_end_gets_it_in_the_turn_it_is_written_and_counts() -> None:
    shop = Shop()
    shop.told(follow(1, "now"))
    assert passed(shop.sent()) == [[1, 0]]
    ticket = shop.publish(7)
    sent = shop.sent()
    assert bodies(sent) == [7]
    assert (ticket.expected, ticket.done) == (1, False)
    shop.accept(sent)
    assert (ticket.accepted, ticket.done) == (1, True)


def test_who_has_no_room_reads_on_from_disk_and_is_not_waited_for() -> None:
    shop = Shop()
    shop.told(follow(1, "now"))
    tickets = [shop.publish(number) for number in range(15)]
    first = [each for each in shop.sent() if each[1][1] != "passed"]
    assert bodies(first) == list(range(10))
    assert [ticket.done for ticket in tickets] == [False] * 10 + [True] * 5
    shop.accept(first)
    rest = shop.sent()
    assert bodies(rest) == list(range(10, 15))
    assert [extra(record, Tag.FOLLOWER) for _, record in rest] == [1] * 5


def test_it_goes_on_after_what_was_handled() -> None:
    shop = Shop()
    shop.publish(*range(1, 9))
    shop.told(follow(1, {"after": 3, "but": [[5, 5], [7, 8]]}), follow(2, {"ms": 7}))
    sent = shop.sent()
    by_reader = [(extra(record, Tag.FOLLOWER), int(bytes(record[2]))) for _, record in sent]
    assert sorted(each for each in by_reader if each[0] == 1) == [(1, 4), (1, 6)]
    assert sorted(each for each in by_reader if each[0] == 2) == [(2, 7), (2, 8)]


def test_what_was_trimmed_is_told_as_missed() -> None:
    shop = Shop(Retention(count=5))
    shop.publish(*range(1, 21))
    shop.told(follow(1, {"after": 2}))
    sent = shop.sent()
    assert extra(sent[0][1], Tag.MISSED) == (1, 13)
    assert bodies(sent) == list(range(16, 21))
    assert list(shop.rows) == list(range(16, 21))


def test_what_a_peer_missed_comes_when_it_has_told_all_and_what_is_new_after_it() -> None:
    shop = Shop()
    shop.publish(*range(1, 6))
    shop.publish(6, lane=9)
    resume = (InterestKind.LOG.value, '[0, ">", {"lanes": [[4, 2], [9, 1]]}]')
    shop.told(resume)
    shop.peer.present = True
    shop.told((InterestKind.TOPIC.value, "a.*"))
    shop.publish(7)
    assert shop.sent() == []
    shop.told(removed=(resume,))
    sent = shop.sent()
    assert bodies(sent) == [3, 4, 5, 6, 7]
    assert [place >> 32 for place, _ in sent] == [4, 4, 4, 9, 4]
    assert [extra(record, Tag.FOLLOWER) for _, record in sent] == [0, 0, 0, 0, None]
    shop.publish(8)
    assert bodies(shop.sent()) == [8]
    assert len(shop.topics.readers) == 0


def test_a_reader_ends_with_its_session() -> None:
    shop = Shop()
    shop.publish(*range(20))
    resume = (InterestKind.LOG.value, '[0, ">", {"lanes": [[4, 2]]}]')
    shop.told(follow(1, "first"), resume)
    sent = shop.sent()
    shop.peer.session = None
    shop.interest.forget(shop.peer)
    shop.settle_down()
    assert len(shop.topics.readers) == 0
    assert len(bodies(sent)) == 10
    assert shop.sent() == []
