"""Redelivery alone: what it decides on records that came back."""

import pytest

from tests.discovery.entropy import FixedEntropy
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer, Peers
from zmesh.core.turn import Turn
from zmesh.ids import NodeId, SessionId
from zmesh.message import FailureKind, Kind, Outcome, Record, Tag, Ticket, extra, head, with_extra
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns.dead_letters import DeadLetters
from zmesh.patterns.redelivery import Redelivery
from zmesh.reliable.link_events import Arrived, Returned, SessionEnd

RECORD: Record = (head(Kind.DIRECT), "", b"x")


class Bench:
    """A redelivery whose peer is a loopback, so that what it submits can be seen."""

    def __init__(self, options: NodeOptions | None = None) -> None:
        options = options or NodeOptions()
        self.loopback = Loopback(SessionId(bytes(16)), LinkOptions())
        self.peer = Peer(NodeId(b"p" * 16), "printer", self.loopback)
        self.turn = Turn(Peers(self.peer, options), options.link, 0.0)
        self.dead_letters = DeadLetters(self.turn, options)
        self.redelivery = Redelivery(self.turn, options, FixedEntropy(1.0), self.dead_letters)

    def back(
        self,
        outcome: Outcome,
        *,
        record: Record = RECORD,
        ticket: Ticket | None = None,
        delay: float = 0.0,
        transmitted: bool = True,
        ended: SessionEnd | None = None,
        lane: int = 4,
    ) -> Ticket:
        ticket = ticket or Ticket()
        returned = Returned(record, ticket, lane, outcome, "why", delay, transmitted)
        self.redelivery.on_returned(self.peer, returned, ended)
        return ticket

    def submitted(self, now: float) -> list[Record]:
        """Let the time come, and return what is submitted again."""
        self.turn.begin(now)
        self.redelivery.flush()
        self.redelivery.on_timer()
        events = self.loopback.take_events()
        return [r for event in events if isinstance(event, Arrived) for r in event.records]


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [(Outcome.REJECTED, FailureKind.REJECTED), (Outcome.EXPIRED, FailureKind.EXPIRED)],
)
def test_a_final_verdict_fails_the_message(outcome: Outcome, kind: FailureKind) -> None:
    bench = Bench()
    ticket = bench.back(outcome)
    (failure,) = ticket.failures
    assert (failure.kind, failure.peer, failure.reason) == (kind, "printer", "why")


@pytest.mark.parametrize(
    ("ended", "kind"),
    [
        (SessionEnd.PEER_RESTARTED, FailureKind.PEER_RESTARTED),
        (SessionEnd.PEER_FORGOT, FailureKind.PEER_RESTARTED),
        (SessionEnd.LINGER_OVER, FailureKind.PEER_LOST),
        (SessionEnd.PEER_LEFT, FailureKind.PEER_LOST),
        (SessionEnd.CLOSED, FailureKind.CLOSED),
    ],
)
def test_what_was_sent_when_its_session_ended_fails(ended: SessionEnd, kind: FailureKind) -> None:
    ticket = Bench().back(Outcome.UNKNOWN, ended=ended)
    assert [failure.kind for failure in ticket.failures] == [kind]


@pytest.mark.parametrize("ended", [SessionEnd.PEER_RESTARTED, SessionEnd.PEER_FORGOT, None])
def test_what_was_not_sent_goes_into_the_next_session(ended: SessionEnd | None) -> None:
    bench = Bench()
    ticket = bench.back(Outcome.RELEASED, transmitted=False, ended=ended)
    assert ticket.failures == []
    assert bench.submitted(0.0) == [RECORD]


def test_what_was_not_sent_goes_in_the_order_it_was_submitted_first() -> None:
    bench = Bench()
    for order, lane in ((2, 4), (4, 4), (1, 5), (3, 5)):  # as lanes return it
        ticket = Ticket()
        ticket.order = order
        record: Record = (head(Kind.DIRECT), "", str(order).encode())
        bench.back(
            Outcome.RELEASED, record=record, ticket=ticket, lane=lane, transmitted=False,
            ended=SessionEnd.PEER_RESTARTED,
        )  # fmt: skip
    assert [record[2] for record in bench.submitted(0.0)] == [b"1", b"2", b"3", b"4"]


def test_a_peer_gone_in_the_turn_its_session_ended_fails_what_was_not_sent() -> None:
    bench = Bench()
    ticket = bench.back(Outcome.RELEASED, transmitted=False, ended=SessionEnd.PEER_RESTARTED)
    bench.redelivery.on_gone(bench.peer, FailureKind.CLOSED, "")
    assert [failure.kind for failure in ticket.failures] == [FailureKind.CLOSED]
    assert bench.submitted(9.0) == []


def test_pauses_double_up_to_their_limit() -> None:
    bench = Bench(NodeOptions(redeliver_min=1.0, redeliver_max=5.0, attempts_max=99))
    pauses = []
    for attempt in (1, 2, 3, 4, 20):
        record = RECORD if attempt == 1 else with_extra(RECORD, Tag.ATTEMPT, attempt)
        bench.back(Outcome.MODIFIED, record=record)
        pauses.append(bench.redelivery.deadline)
        (again,) = bench.submitted(100.0)
        assert extra(again, Tag.ATTEMPT) == attempt + 1
        bench.turn.begin(0.0)
    assert pauses == [2.0, 4.0, 5.0, 5.0, 5.0]


def test_a_longer_delay_asked_for_outranks_the_pause() -> None:
    bench = Bench()
    bench.back(Outcome.MODIFIED, delay=60.0)
    assert bench.redelivery.deadline == 60.0


def test_waiting_attempts_are_counted_against_the_peer() -> None:
    bench = Bench()
    bench.back(Outcome.RELEASED, delay=5.0)
    assert (bench.peer.retries, bench.peer.retry_bytes, len(bench.redelivery)) == (1, 17, 1)
    assert bench.turn.room(bench.peer) == LinkOptions().queued_messages_max - 1
    bench.submitted(5.0)
    assert (bench.peer.retries, bench.peer.retry_bytes, len(bench.redelivery)) == (0, 0, 0)


def test_the_predecessor_of_an_ended_session_is_left_out() -> None:
    bench = Bench()
    record = with_extra(with_extra(RECORD, Tag.KEY, "k"), Tag.PREDECESSORS, ((4, 17),))
    bench.back(Outcome.RELEASED, record=record, transmitted=False, ended=SessionEnd.PEER_RESTARTED)
    (again,) = bench.submitted(0.0)
    assert extra(again, Tag.PREDECESSORS) is None
    assert extra(again, Tag.KEY) == "k"


def test_dead_letters_are_bounded_by_their_bytes_and_the_oldest_make_room() -> None:
    bench = Bench(NodeOptions(attempts_max=1, dead_letters_bytes_max=3_000))
    for text in (b"1", b"2", b"3"):
        bench.back(Outcome.MODIFIED, record=(head(Kind.DIRECT), "", text * 1_000))
    assert [letter.record[2][:1] for letter in bench.dead_letters.letters()] == [b"2", b"3"]
    assert bench.dead_letters.dead_lettered == 3
    bench.back(Outcome.MODIFIED, record=(head(Kind.DIRECT), "", bytes(4_000)))
    assert bench.dead_letters.letters() == [], "one that alone is too large is not kept"
