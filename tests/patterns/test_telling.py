"""A peer that tells much and takes nothing gets no more answers than it can be made to hold."""

from itertools import count

from tests.engines import Host, World
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.events import TimerFired
from zmesh.message import Kind, Outcome, Record, Ticket, Ways, head
from zmesh.options import NodeOptions
from zmesh.patterns import stream_records
from zmesh.patterns.job_control import Grant, Offer, encode

MANY = 5000
ANSWERS_MAX = NodeOptions().answers_max


def deaf(host: Host) -> None:
    """Let a host take nothing of what is told it of queues and streams."""
    for kind in (Kind.JOB_CONTROL, Kind.STREAM_CONTROL):
        host.engine._news._arrivals._receivers[kind] = lambda *_: None


def tell(host: Host, other: Host, records: list[Record]) -> None:
    """Send records that no honest engine would, as its patterns send theirs."""
    turn = host.engine._turn
    peer = turn.peers.find(other.id)
    assert peer is not None
    ticket = Ticket(len(records))
    turn.submit(peer, 9, records, ticket)
    host.do(TimerFired())
    host.world.run(1.0)
    assert ticket.accepted == len(records), "all were taken"


def queued(host: Host, other: Host) -> int:
    return host.engine.statistics().links[other.id].queued_messages


def test_grants_for_queues_nobody_has_are_answered_within_a_bound() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    deaf(b)
    tell(b, a, [encode(Grant(f"queue-{number}", 1, 1, recalls=False)) for number in range(MANY)])
    assert 0 < queued(a, b) <= ANSWERS_MAX


def test_grants_that_are_recalled_again_and_again_are_answered_within_a_bound() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.pull("work", 4)
    ticket = a.push("work", "one")
    world.run(1.0)
    b.settle_job()
    world.run(1.0)
    assert ticket.accepted == 1
    deaf(b)
    [outlet] = a.engine.queues.pushed._queues["work"].outlets.values()
    grants = [Grant("work", outlet.relation, outlet.limit + n, recalls=True) for n in range(MANY)]
    for grant in grants[:200]:
        tell(b, a, [encode(grant)])
    stale = [replaced(grant) for grant in grants]
    tell(b, a, [encode(grant) for grant in stale])
    assert 0 < queued(a, b) <= ANSWERS_MAX


def replaced(grant: Grant) -> Grant:
    return Grant(grant.queue, grant.relation + 1000, grant.limit, grant.recalls)


def test_offers_that_take_grants_and_give_them_back_are_answered_within_a_bound() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    a.pull("work", 4)
    world.run(1.0)
    deaf(b)
    limits = count(0, 4)
    for limit in [next(limits) for _ in range(500)]:
        tell(b, a, [encode(Offer("work", 7, limit, limit, 4))])
    assert 0 < queued(a, b) <= ANSWERS_MAX


def test_parts_of_streams_nobody_reads_are_turned_away_within_a_bound() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    deaf(b)
    tell(b, a, [stream_records.grant("", number, 1, 1) for number in range(1, MANY)])
    assert 0 < queued(a, b) <= ANSWERS_MAX


def test_streams_that_are_refused_leave_nothing_of_their_peer() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    a.serve("tail")
    request = (head(Kind.STREAM_CONTROL), "tail", b"")
    ways = Ways(0)  # which opens nothing
    turn = b.engine._turn
    peer = turn.peers.find(a.id)
    assert peer is not None
    turn.submit(peer, 4, [stream_records.opening(request, 1, ways, 1, 1)], Ticket())
    b.do(TimerFired())
    world.run(1.0)
    assert a.engine.statistics().defects == {"stream": 1}
    assert a.engine._news.streams.serving._of_peer == {}


def test_what_is_told_late_is_what_holds_then() -> None:
    """One that takes slowly hears of every queue, and only of how it stands at last."""
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    telling = a.engine.queues.pushed._telling
    said: list[str] = []
    say = telling._say

    def noting(peer: Peer, name: str) -> Record | None:
        said.append(name)
        return say(peer, name)

    telling._say = noting
    held: list[tuple[object, int, int]] = []
    b.engine._news._arrivals._receivers[Kind.JOB_CONTROL] = lambda _, source, first, last, __: (
        held.append((source, first, last))
    )
    peer = a.engine._turn.peers.find(b.id)
    assert peer is not None
    names = [f"queue-{number}" for number in range(ANSWERS_MAX + 10)]
    for _ in range(3):
        for name in names:
            telling.tell(peer, name)
    a.do(TimerFired())
    world.run(1.0)
    assert len(said) == ANSWERS_MAX
    turn: Turn = b.engine._turn
    for source, first, last in held:
        turn.settle(source, first, last, Outcome.ACCEPTED)  # type: ignore[arg-type]
    held.clear()
    b.do(TimerFired())
    world.run(1.0)
    assert len(said) > ANSWERS_MAX
    assert set(said) == set(names)
    assert said[ANSWERS_MAX:].count("queue-0") == 1
