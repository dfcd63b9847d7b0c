"""Direct messages between whole nodes on a simulated network."""

from dataclasses import replace

import pytest

from tests.engines import Host, World, direct
from zmesh.actions import DeliverInbox, Delivery, RoomChanged
from zmesh.events import (
    CandidateFound,
    CloseNode,
    OpenInbox,
    Post,
    SettleDeliveries,
)
from zmesh.ids import Path
from zmesh.message import Failure, FailureKind, Outcome, Tag, Ticket, extra
from zmesh.options import KIB, LinkOptions, NodeOptions
from zmesh.wire.frames import Packet


def deliveries(host: Host) -> list[Delivery]:
    return [
        d for action in host.ordered(DeliverInbox) if isinstance(action, DeliverInbox)
        for d in action.deliveries
    ]  # fmt: skip


def until_next(host: Host) -> float:
    """Let time pass until the next delivery; return how long that took."""
    count = len(host.inbox)
    return host.world.run_until(lambda: len(host.inbox) > count)


def settle(host: Host, outcome: Outcome, reason: str = "", delay: float = 0.0) -> None:
    """Give the latest delivery its outcome."""
    last = deliveries(host)[-1]
    host.do(SettleDeliveries(last.source, last.first_seq, last.last_seq, outcome, reason, delay))


def test_a_thousand_messages_arrive_in_order_and_are_accepted() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    texts = [str(number) for number in range(1000)]
    ticket = a.post("b", *texts)
    world.run_until(lambda: a.finished(ticket))
    assert b.inbox == texts
    assert (ticket.accepted, ticket.failures) == (1000, [])


def test_messages_posted_in_one_turn_are_delivered_as_one_batch() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    tickets = [a.post("b", str(number)) for number in range(100)]
    world.run_until(lambda: all(a.finished(ticket) for ticket in tickets))
    assert [len(delivery.records) for delivery in deliveries(b)] == [100]


def test_a_message_to_this_node_itself_arrives_too() -> None:
    world = World()
    a = world.host("a")
    ticket = a.post("a", "note to self")
    world.run_until(lambda: a.finished(ticket))
    assert a.inbox == ["note to self"]
    assert ticket.accepted == 1


def test_a_large_body_travels_in_pieces_and_is_settled_as_one() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    text = "x" * (300 * KIB)
    ticket = a.post("b", "small", text, "after")
    world.run_until(lambda: a.finished(ticket))
    assert b.inbox == ["small", text, "after"]
    assert ticket.accepted == 3
    assert a.engine.statistics().queued_messages == 0


def test_a_body_nobody_may_send_fails_at_once() -> None:
    world = World(NodeOptions(link=LinkOptions(body_bytes_max=100)))
    a, _ = world.mesh("a", "b")
    ticket = a.post("b", "x" * 101)
    world.run(0.0)
    assert ticket.failures[0].kind is FailureKind.REJECTED
    assert "101" in ticket.failures[0].reason


def test_a_message_waits_for_a_peer_that_is_only_heard_of() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    world.part(a, b)
    a.do(CandidateFound("mdns", b.id, "b", (b.endpoint,)))
    first, second = a.post("b", "one"), a.post("b", "two")
    world.run(1.0)
    assert not b.inbox
    world.join(a, b)
    world.run_until(lambda: a.finished(first) and a.finished(second))
    assert b.inbox == ["one", "two"]


@pytest.mark.parametrize("to", ["nobody", "ff" * 16])
def test_a_message_for_nobody_fails_at_once(to: str) -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    ticket = a.post(to, "one", "two")
    world.run(0.0)
    assert [failure.kind for failure in ticket.failures] == [FailureKind.PEER_UNKNOWN] * 2
    assert a.finished(ticket)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_message_for_who_just_left_fails_as_lost(*, by_name: bool) -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(CloseNode())
    world.run(1.0)
    ticket = a.post("b" if by_name else b, "one")
    world.run(0.0)
    assert ticket.failures == [
        Failure(FailureKind.PEER_LOST, "b" if by_name else b.id.hex(), "it has left")
    ]


@pytest.mark.parametrize("by_name", [True, False])
def test_a_message_for_who_is_gone_for_good_fails_at_once(*, by_name: bool) -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.kill()
    world.run(5.0)
    ticket = a.post("b" if by_name else b, "one", "two")
    world.run(0.0)
    why = "it is gone and has not come back: this was not sent"
    assert ticket.failures == [Failure(FailureKind.PEER_LOST, "b", why)] * 2
    assert a.finished(ticket)


def test_a_message_for_one_of_many_lives_of_a_name_goes_to_the_one_that_lives() -> None:
    world = World()
    a, *others = world.mesh("a", "b", "c", "d")
    for other in others:
        peer = a.engine._peers.get(other.id)
        assert peer is not None
        a.engine._peers.rename(peer, "camera")
    others[0].kill()
    others[1].kill()
    world.run(5.0)
    ticket = a.post("camera", "one")
    world.run(1.0)
    assert others[2].inbox == ["one"]
    assert ticket.accepted == 1
    others[2].kill()
    world.run(5.0)
    late = a.post("camera", "two")
    world.run(0.0)
    assert [failure.kind for failure in late.failures] == [FailureKind.PEER_LOST]


def test_who_was_gone_for_good_and_restarts_gets_what_is_posted_from_then_on() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.kill()
    world.run(5.0)
    again = world.host("b")
    world.introduce(a, again)
    world.run(2.0)
    ticket = a.post(again, "one")
    world.run(1.0)
    assert again.inbox == ["one"]
    assert ticket.accepted == 1


def test_who_is_merely_out_of_reach_gets_what_is_posted_meanwhile_when_it_returns() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    world.part(a, b)
    world.run(30.0)
    ticket = a.post("b", "one")
    world.run(5.0)
    assert not ticket.failures
    world.join(a, b)
    world.run_until(lambda: a.finished(ticket))
    assert b.inbox == ["one"]


def test_what_was_heard_of_one_that_stayed_away_is_forgotten_with_it() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.kill()
    world.run(200.0)
    assert a.engine._peers.get(b.id) is None
    ticket = a.post("b", "one")
    world.run(0.0)
    assert [failure.kind for failure in ticket.failures] == [FailureKind.PEER_UNKNOWN]


def test_messages_are_held_until_the_inbox_is_read() -> None:
    world = World()
    a, b = world.host("a"), world.host("b", inbox=False)
    world.introduce(a, b)
    world.run(3.0)
    ticket = a.post("b", "one", "two")
    world.run(1.0)
    assert b.inbox == []
    assert b.engine.statistics().held == 2
    b.do(OpenInbox())
    world.run_until(lambda: a.finished(ticket))
    assert b.inbox == ["one", "two"]
    assert b.engine.statistics().held == 0


def test_what_is_held_stays_within_credit() -> None:
    world = World()
    a, b = world.host("a"), world.host("b", inbox=False)
    world.introduce(a, b)
    world.run(3.0)
    a.post("b", *map(str, range(5000)))
    world.run(5.0)
    assert b.engine.statistics().held == world.options.link.window_messages
    assert a.engine.statistics().queued_messages == 5000


def test_the_time_a_message_is_held_counts_against_its_ttl() -> None:
    world = World()
    a, b = world.host("a"), world.host("b", inbox=False)
    world.introduce(a, b)
    world.run(3.0)
    short, long = a.post("b", "short", ttl=1.0), a.post("b", "long", ttl=9.0)
    for_ever = a.post("b", "for ever")
    world.run(2.0)
    b.do(OpenInbox())
    world.run_until(lambda: all(a.finished(t) for t in (short, long, for_ever)))
    assert b.inbox == ["long", "for ever"]
    assert short.failures[0].kind is FailureKind.EXPIRED
    left = extra(deliveries(b)[0].records[0], Tag.TTL_MS)
    assert isinstance(left, int)
    assert 6000 < left < 7100


def test_what_was_held_of_an_ended_session_is_dropped() -> None:
    world = World(NodeOptions(link=LinkOptions(session_linger=2.0)))
    a, b = world.host("a"), world.host("b", inbox=False)
    world.introduce(a, b)
    world.run(3.0)
    a.post("b", "one", "two")
    world.run(1.0)
    a.kill()
    world.run(10.0)
    statistics = b.engine.statistics()
    assert (statistics.held, statistics.unsettled_in) == (0, 0)


def test_a_rejected_message_fails_with_the_reason() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", "one")
    world.run(1.0)
    settle(b, Outcome.REJECTED, "not for me")
    world.run_until(lambda: a.finished(ticket))
    failure = ticket.failures[0]
    assert (failure.kind, failure.peer, failure.reason) == (
        FailureKind.REJECTED, "b", "not for me",
    )  # fmt: skip


def test_a_message_whose_handling_failed_comes_again_with_its_attempt_counted() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", "one")
    world.run(1.0)
    for attempt in (1, 2, 3):
        record = deliveries(b)[-1].records[0]
        assert (extra(record, Tag.ATTEMPT) or 1) == attempt
        settle(b, Outcome.MODIFIED, "boom")
        world.run(5.0)
    settle(b, Outcome.ACCEPTED)
    world.run_until(lambda: a.finished(ticket))
    assert b.inbox == ["one"] * 4
    assert ticket.accepted == 1
    assert a.engine.statistics().redelivered == 3


def test_attempts_come_ever_later() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    a.post("b", "one")
    world.run(1.0)
    pauses = []
    for _ in range(6):
        settle(b, Outcome.MODIFIED, "boom")
        pauses.append(until_next(b))
    assert pauses == sorted(pauses)
    assert pauses[-1] > 1.0


def test_a_message_that_fails_too_often_becomes_a_dead_letter() -> None:
    world = World(NodeOptions(attempts_max=3, dead_letters_max=2))
    a, b = world.mesh("a", "b")
    b.accepts = False
    for _ in range(3):
        ticket = a.post("b", "poison")
        world.run(1.0)
        for _ in range(3):
            settle(b, Outcome.MODIFIED, "boom")
            world.run(2.0)
        failure = ticket.failures[0]
        assert (failure.kind, failure.attempts) == (FailureKind.DEAD_LETTERED, 3)
        assert a.finished(ticket)
    letters = a.engine.dead_letters()
    assert len(letters) == 2, "the table is bounded"
    assert (letters[0].peer, letters[0].reason, letters[0].attempts) == (b.id, "boom", 3)
    assert a.engine.statistics().dead_lettered == 3
    assert len(a.traces("dead_lettered")) == 3


def test_a_released_message_comes_again_unchanged_after_its_delay() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", "one")
    world.run(1.0)
    settle(b, Outcome.RELEASED, delay=3.0)
    assert 3.0 <= world.run_until(lambda: len(b.inbox) == 2) < 3.1
    assert extra(deliveries(b)[-1].records[0], Tag.ATTEMPT) is None
    settle(b, Outcome.ACCEPTED)
    world.run_until(lambda: a.finished(ticket))


def test_posting_nothing_is_done_at_once() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    ticket = a.post("b")
    world.run(0.0)
    assert a.finished(ticket)


def test_two_nodes_do_not_play_ping_pong_with_a_released_message() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    a.post("b", "one")
    world.run(1.0)
    for _ in range(20):
        settle(b, Outcome.RELEASED)
        assert until_next(b) >= 0.05


def test_a_retry_ends_when_its_ttl_does() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", "one", ttl=2.0)
    world.run(1.0)
    settle(b, Outcome.RELEASED, delay=5.0)
    world.run_until(lambda: a.finished(ticket), 10.0)
    assert ticket.failures[0].kind is FailureKind.EXPIRED
    assert b.inbox == ["one"]


def test_a_retry_keeps_its_key() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    a.post("b", "one", key="user-7")
    world.run(1.0)
    settle(b, Outcome.MODIFIED)
    world.run(2.0)
    assert extra(deliveries(b)[-1].records[0], Tag.KEY) == "user-7"


def test_one_ticket_collects_different_outcomes() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", "good", "bad", "good too")
    world.run(1.0)
    (delivery,) = deliveries(b)
    source, first = delivery.source, delivery.first_seq
    b.do(
        SettleDeliveries(source, first, first, Outcome.ACCEPTED),
        SettleDeliveries(source, first + 1, first + 1, Outcome.REJECTED, "bad"),
        SettleDeliveries(source, first + 2, first + 2, Outcome.ACCEPTED),
    )
    world.run_until(lambda: a.finished(ticket))
    assert (ticket.accepted, len(ticket.failures)) == (2, 1)


def test_a_message_settled_twice_counts_once() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", "one", "two")
    world.run(1.0)
    settle(b, Outcome.ACCEPTED)
    settle(b, Outcome.REJECTED)
    world.run(1.0)
    assert (ticket.accepted, ticket.failures) == (2, [])
    assert b.engine.statistics().unsettled_in == 0


def test_what_a_killed_peer_had_is_lost_and_said_so() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", "one")
    world.run(1.0)
    b.kill()
    world.run_until(lambda: a.finished(ticket), 10.0)
    assert ticket.failures[0].kind is FailureKind.PEER_LOST


def test_after_a_restart_the_sent_fails_and_the_unsent_is_delivered() -> None:
    world = World(NodeOptions(link=LinkOptions(window_messages=2, gone_linger=30.0)))
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", "1", "2", "3", "4")
    world.run(1.0)
    assert b.inbox == ["1", "2"]
    b.kill()
    again = world.host("b")
    world.introduce(a, again)
    world.run_until(lambda: a.finished(ticket))
    assert again.inbox == ["3", "4"]
    assert ticket.accepted == 2
    assert [failure.kind for failure in ticket.failures] == [FailureKind.PEER_RESTARTED] * 2


def test_a_keyed_message_unsent_at_a_restart_waits_for_no_number_of_the_old_session() -> None:
    world = World(NodeOptions(link=LinkOptions(window_messages=2, gone_linger=30.0)))
    a, b = world.mesh("a", "b")
    b.accepts = False
    a.post("b", "x", "x", lane=5)  # as much as the lane may send
    a.post("b", "x", "x", "0", key="k", lane=4)
    a.post("b", "1", key="k", lane=5)  # names a predecessor in lane 4
    world.run(1.0)
    b.kill()
    again = world.host("b")
    world.introduce(a, again)
    world.run(10.0)
    assert again.inbox == ["0", "1"]


def test_what_comes_back_unsent_goes_before_what_is_posted_in_the_same_turn() -> None:
    world = World(NodeOptions(link=LinkOptions(window_messages=1, gone_linger=30.0)))
    a, b = world.mesh("a", "b")
    b.accepts = False
    a.post("b", "0", "1", "2")
    world.run(1.0)
    b.kill()
    again = world.host("b")
    world.introduce(a, again)
    link = a.engine._peers.get(b.id).link  # type: ignore[union-attr]
    session, on_packet = link.session, link.on_packet

    def spy(path: Path, packet: Packet, now: float) -> None:
        on_packet(path, packet, now)
        if link.session != session and not posted:
            posted.append(Post(b.id, 4, [direct("3")], Ticket()))
            a.engine._news.direct.on_post(posted[0])  # as the next event of the same turn

    posted: list[Post] = []
    link.on_packet = spy  # type: ignore[method-assign]
    world.run(10.0)
    assert again.inbox == ["1", "2", "3"]


def test_messages_survive_a_connection_that_breaks_again_and_again() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    texts = [str(number) for number in range(500)]
    tickets = []
    for number, text in enumerate(texts):
        tickets.append(a.post("b", text))
        world.run(0.01)
        if number % 50 == 49:
            world.network.reset(a.index, b.index)
    world.run_until(lambda: all(a.finished(ticket) for ticket in tickets))
    assert b.inbox == texts
    assert all(ticket.accepted == 1 for ticket in tickets)


def test_what_was_delivered_before_a_break_can_be_settled_after_it() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", "one")
    world.run(1.0)
    world.network.reset(a.index, b.index)
    world.run(5.0)
    settle(b, Outcome.ACCEPTED)
    world.run_until(lambda: a.finished(ticket))
    assert (ticket.accepted, b.inbox) == (1, ["one"])


def test_a_full_peer_says_when_it_has_room() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=10)))
    a, b = world.mesh("a", "b")
    b.accepts = False
    assert a.engine.room(b.id) == 10
    a.post("b", *map(str, range(10)))
    world.run(1.0)
    assert a.engine.room(b.id) == 0
    assert a.engine.queued(b.id)[0] == 10
    assert not a.ordered(RoomChanged)
    settle(b, Outcome.ACCEPTED)
    world.run(1.0)
    assert a.ordered(RoomChanged) == [RoomChanged(b.id)]
    assert a.engine.room(b.id) == 10


def test_messages_that_wait_for_another_attempt_take_room() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=10)))
    a, b = world.mesh("a", "b")
    b.accepts = False
    a.post("b", *map(str, range(10)))
    world.run(1.0)
    settle(b, Outcome.RELEASED, delay=60.0)
    world.run(1.0)
    assert a.engine.statistics().retries == 10
    assert a.engine.room(b.id) == 0
    assert a.engine.queued(b.id) == (10, 170)
    b.kill()
    world.run(10.0)
    assert a.engine.statistics().retries == 0
    assert a.engine.room(b.id) == 10


def test_room_for_who_is_not_known_is_that_of_an_empty_queue() -> None:
    world = World()
    a = world.host("a")
    assert a.engine.room(a.id) == world.options.link.queued_messages_max
    nobody = type(a.id)(b"n" * 16)
    assert a.engine.room(nobody) == world.options.link.queued_messages_max
    assert a.engine.queued(nobody) == (0, 0)


def test_a_peer_that_restarts_for_ever_cannot_fill_the_memory_of_a_slow_application() -> None:
    options = NodeOptions(stale_deliveries_max=100)
    world = World(options)
    b = world.host("b")
    b.accepts = False
    for _ in range(10):
        a = world.host("a")
        world.introduce(a, b)
        world.run(3.0)
        a.post("b", *map(str, range(60)))
        world.run(1.0)
        a.kill()
        world.run(3.0)
    assert len(b.inbox) <= 180
    for delivery in deliveries(b):
        b.do(SettleDeliveries(delivery.source, delivery.first_seq, delivery.last_seq,
                              Outcome.ACCEPTED))  # fmt: skip
    a = world.host("a")
    world.introduce(a, b)
    world.run(3.0)
    a.post("b", "welcome back")
    world.run(3.0)
    assert b.inbox[-1] == "welcome back"


def test_priorities_and_batches_of_mixed_kinds_arrive_apart() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.subscribe(1, "t")
    world.run(1.0)
    ticket = Ticket(2)
    a.do(Post(b.id, 4, [direct("one")], ticket))
    publication = a.publish("t", "between")
    a.do(Post(b.id, 4, [direct("two")], ticket), replace(Post(b.id, 9, [direct("up")], Ticket())))
    world.run_until(lambda: a.finished(ticket) and a.finished(publication))
    assert b.inbox.index("one") < b.inbox.index("two")
    assert b.inbox[0] == "up"
    assert b.heard == [("t", "between")]


def test_a_peer_full_of_retries_says_when_it_has_room() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=10)))
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", *map(str, range(9)))
    world.run(1.0)
    settle(b, Outcome.RELEASED, delay=1.0)
    world.run(0.5)
    a.post("b", "the tenth")
    world.run(0.1)
    assert a.engine.room(b.id) == 0
    b.accepts = True
    world.run_until(lambda: a.finished(ticket))
    world.run(1.0)
    assert a.ordered(RoomChanged) == [RoomChanged(b.id)]


def test_retries_that_expire_make_room() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=2)))
    a, b = world.mesh("a", "b")
    b.accepts = False
    a.post("b", "1", "2", ttl=2.0)
    world.run(1.0)
    settle(b, Outcome.RELEASED, delay=3.0)
    world.run(0.5)
    assert a.engine.room(b.id) == 0
    world.run(5.0)
    assert a.ordered(RoomChanged) == [RoomChanged(b.id)]
