"""Publications between whole nodes on a simulated network."""

from tests.engines import Host, World
from zmesh.actions import DeliverInbox, DeliverPublications, Delivery, PeerState
from zmesh.batches import Block
from zmesh.events import (
    CloseNode,
    Publish,
    PublishMany,
    SettleDeliveries,
    Subscribe,
    Unsubscribe,
)
from zmesh.message import FailureKind, Kind, Outcome, Record, Tag, Ticket, extra, head, with_extra
from zmesh.options import LinkOptions, NodeOptions
from zmesh.terms import Filter, Terms


def delivered(host: Host) -> list[tuple[Delivery, list[tuple[int, ...]]]]:
    return [
        pair for action in host.ordered(DeliverPublications)
        if isinstance(action, DeliverPublications) for pair in action.deliveries
    ]  # fmt: skip


def settle(host: Host, outcome: Outcome, delay: float = 0.0) -> None:
    last = delivered(host)[-1][0]
    host.do(SettleDeliveries(last.source, last.first_seq, last.last_seq, outcome, "", delay))


def test_a_publication_reaches_every_matching_subscriber_and_no_other() -> None:
    world = World()
    a, b, c, d = world.mesh("a", "b", "c", "d")
    b.subscribe(1, "sensors.*.temp")
    c.subscribe(1, "sensors.>")
    d.subscribe(1, "sensors.kitchen")
    world.run(1.0)
    ticket = a.publish("sensors.kitchen.temp", "21.5")
    world.run_until(lambda: a.finished(ticket))
    assert b.heard == c.heard == [("sensors.kitchen.temp", "21.5")]
    assert d.heard == []
    assert (ticket.expected, ticket.accepted) == (2, 2)


def test_a_publication_nobody_wants_is_done_at_once_and_sends_nothing() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    before = b.engine.statistics().packets_received
    ticket = a.publish("sensors", "21.5")
    world.run(0.01)
    assert a.finished(ticket)
    assert (ticket.expected, ticket.accepted) == (0, 0)
    assert b.engine.statistics().packets_received == before


def test_own_subscriptions_receive_too() -> None:
    world = World()
    (a,) = world.mesh("a")
    a.subscribe(1, "t")
    world.run(0.1)
    ticket = a.publish("t", "to myself")
    world.run_until(lambda: a.finished(ticket))
    assert a.heard == [("t", "to myself")]
    assert ticket.accepted == 1


def test_a_publication_travels_once_however_many_subscriptions_match() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.subscribe(1, "t.*")
    b.subscribe(2, "t.x")
    b.subscribe(3, "other")
    world.run(1.0)
    ticket = a.publish("t.x", "once")
    world.run_until(lambda: a.finished(ticket))
    ((delivery, tokens),) = delivered(b)
    assert len(delivery.records) == 1
    assert [sorted(each) for each in tokens] == [[1, 2]]
    assert ticket.expected == 1


def test_the_body_is_the_same_object_for_every_receiver() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    for host in (b, c):
        host.subscribe(1, "t")
    world.run(1.0)
    record = (head(Kind.PUBLICATION), "t", b"encoded once")
    a.do(Publish(record, 4, Ticket()))
    a._turn()
    bodies = [
        lane.items[number][2]
        for peer in a.engine._peers
        for lane in peer.link._session.outgoing.values()
        for number in lane.items
    ]
    assert len(bodies) == 2
    assert all(each is record[2] for each in bodies)


def test_many_changes_in_one_turn_are_told_in_one_record() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    before = len(b.changes)
    a.do(*(Subscribe(token, f"t.{token}") for token in range(100)))
    a.serve("one")
    a.serve("two")
    a.do(Subscribe(200, "brief"), Unsubscribe(200))
    world.run(1.0)
    assert len(b.changes) == before + 1
    (view,) = b.engine.peers()
    assert view.services == {"one", "two"}
    assert view.topics == {f"t.{token}" for token in range(100)}


def test_a_peer_that_joins_later_is_told_everything() -> None:
    world = World(NodeOptions())
    a = world.host("a")
    a.do(*(Subscribe(token, f"t.{token}") for token in range(1024)))
    a.serve("work")
    world.run(1.0)
    b = world.host("b")
    world.introduce(a, b)
    world.run(3.0)
    (view,) = b.engine.peers()
    assert len(view.topics) == 1024
    assert view.services == {"work"}


def test_an_ended_subscription_is_no_longer_sent_to() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.subscribe(1, "t")
    b.subscribe(2, "t")
    world.run(1.0)
    b.do(Unsubscribe(1))
    world.run(1.0)
    ticket = a.publish("t", "still one")
    world.run_until(lambda: a.finished(ticket))
    assert ticket.accepted == 1
    b.do(Unsubscribe(2), Unsubscribe(2))
    world.run(1.0)
    assert a.engine.peers()[0].topics == frozenset()
    ticket = a.publish("t", "nobody")
    world.run(0.1)
    assert ticket.expected == 0


def test_a_publication_that_crosses_the_end_of_its_subscription_is_accepted() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.subscribe(1, "t.x")
    b.subscribe(2, "t.y")
    world.run(1.0)
    b.do(Unsubscribe(1))
    tickets = [a.publish(f"t.{which}", which) for which in "yxxy"]
    world.run_until(lambda: all(a.finished(ticket) for ticket in tickets))
    assert b.heard == [("t.y", "y"), ("t.y", "y")]
    assert [ticket.accepted for ticket in tickets] == [1, 1, 1, 1]
    assert b.engine.statistics().unwanted == 2
    assert b.engine.statistics().unsettled_in == 0


def test_a_publication_given_back_comes_again_to_that_subscriber_alone() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    for host in (b, c):
        host.subscribe(1, "t")
    b.accepts = False
    world.run(1.0)
    ticket = a.publish("t", "x")
    world.run(1.0)
    assert (ticket.accepted, ticket.done) == (1, False)
    settle(b, Outcome.MODIFIED)
    world.run(2.0)
    assert (len(b.heard), len(c.heard)) == (2, 1)
    assert extra(delivered(b)[-1][0].records[0], Tag.ATTEMPT) == 2
    settle(b, Outcome.ACCEPTED)
    world.run_until(lambda: a.finished(ticket))
    assert ticket.accepted == 2


def test_own_subscriptions_give_back_with_the_same_meaning() -> None:
    world = World(NodeOptions(attempts_max=2))
    (a,) = world.mesh("a")
    a.subscribe(1, "t")
    a.accepts = False
    ticket = a.publish("t", "x")
    world.run(1.0)
    settle(a, Outcome.RELEASED, delay=1.0)
    world.run(2.0)
    settle(a, Outcome.MODIFIED)
    world.run(2.0)
    settle(a, Outcome.MODIFIED)
    world.run_until(lambda: a.finished(ticket))
    assert len(a.heard) == 3
    assert ticket.failures[0].kind is FailureKind.DEAD_LETTERED


def test_a_receipt_tells_of_each_subscriber() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    for host in (b, c):
        host.subscribe(1, "t")
        host.accepts = False
    world.run(1.0)
    ticket = a.publish("t", "x")
    world.run(1.0)
    settle(b, Outcome.REJECTED)
    c.kill()
    world.run_until(lambda: a.finished(ticket), 20.0)
    assert ticket.accepted == 0
    assert {(f.kind, f.peer) for f in ticket.failures} == {
        (FailureKind.REJECTED, "b"), (FailureKind.PEER_LOST, "c"),
    }  # fmt: skip


def test_who_left_or_was_lost_is_no_receiver() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    for host in (b, c):
        host.subscribe(1, "t")
    world.run(1.0)
    b.kill()
    c.do(CloseNode())
    world.run(2.0)
    ticket = a.publish("t", "x")
    world.run(0.0)
    assert (ticket.expected, ticket.done) == (0, True)


def test_what_was_not_yet_sent_to_a_subscriber_that_restarts_fails() -> None:
    """The next process did not ask for it."""
    world = World(NodeOptions(link=LinkOptions(window_messages=1, gone_linger=30.0)))
    a, b = world.mesh("a", "b")
    b.subscribe(1, "t")
    b.accepts = False
    world.run(1.0)
    tickets = [a.publish("t", "1"), a.publish("t", "2")]
    world.run(1.0)
    b.kill()
    again = world.host("b")
    world.introduce(a, again)
    world.run(10.0)
    kinds = [failure.kind for ticket in tickets for failure in ticket.failures]
    assert kinds == [FailureKind.PEER_RESTARTED] * 2
    assert again.heard == []


def test_subscriptions_outlive_a_broken_connection() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.subscribe(1, "t")
    world.run(1.0)
    world.network.reset(a.index, b.index)
    world.run(5.0)
    ticket = a.publish("t", "after")
    world.run_until(lambda: a.finished(ticket))
    assert b.heard == [("t", "after")]


def test_a_silent_subscriber_with_a_full_queue_holds_nobody_up() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=5)))
    a, b, c = world.mesh("a", "b", "c")
    for host in (b, c):
        host.subscribe(1, "t")
    world.run(1.0)
    assert a.engine.room_to_publish("t") == 5
    world.network.cut(b.index, a.index)
    for number in range(5):
        a.publish("t", str(number))
    world.run(1.0)
    assert a.engine.room_to_publish("t") == 0, "a live subscriber's queue is waited for"
    world.run_until(lambda: a.sees(b) is PeerState.SUSPECT)
    assert a.engine.room_to_publish("t") == 5
    ticket = a.publish("t", "more")
    world.run_until(lambda: a.finished(ticket))
    assert c.heard[-1] == ("t", "more")
    assert (ticket.accepted, ticket.failures[0].peer) == (1, "b")
    assert "full" in ticket.failures[0].reason


def test_room_to_publish_is_none_where_nobody_receives() -> None:
    world = World()
    (a,) = world.mesh("a")
    assert a.engine.room_to_publish("t") is None


def test_what_a_peer_may_be_interested_in_is_bounded_and_checked() -> None:
    world = World(NodeOptions(interest_max=3))
    a, b = world.mesh("a", "b")
    b.do(*(Subscribe(token, f"t.{token}") for token in range(5)))
    world.run(1.0)
    assert len(a.engine.peers()[0].topics) == 3
    for token in range(5, 10):
        b.subscribe(token, f"t.{token}")
        world.run(1.0)
    assert len(a.engine.peers()[0].topics) == 3
    assert a.engine.statistics().defects["interest"] == 6
    (told,) = a.traces("defect")
    assert told.fields["peer"] == "b", "once, however often it comes"
    assert str(told.fields["detail"]).startswith("2 entries")


def test_what_a_peer_may_be_interested_in_is_bounded_in_bytes_too() -> None:
    world = World(NodeOptions(interest_bytes_max=100))
    a, b = world.mesh("a", "b")
    long = ["x" * 40 + str(number) for number in range(4)]
    for token, topic in enumerate(long):
        b.subscribe(token, topic)
    world.run(1.0)
    assert a.engine.peers()[0].topics == set(long[:2])
    assert a.engine.statistics().defects["interest"] == 1
    b.unsubscribe(0)
    b.subscribe(9, "y" * 41)
    world.run(1.0)
    assert a.engine.peers()[0].topics == {long[1], "y" * 41}, "what was taken back makes room"
    peer = a.engine._peers.get(b.id)
    assert peer is not None
    assert peer.interest_bytes == 82
    b.kill()
    world.run(100.0)
    assert peer.interest_bytes == 0


def test_a_publication_given_back_fails_when_its_subscriber_restarts() -> None:
    world = World(NodeOptions(link=LinkOptions(gone_linger=30.0)))
    a, b = world.mesh("a", "b")
    b.subscribe(1, "t")
    world.run(1.0)
    b.accepts = False
    ticket = a.publish("t", "one")
    posted = a.post("b", "two")
    world.run(1.0)
    settle(b, Outcome.RELEASED, delay=5.0)
    (inbox,) = b.ordered(DeliverInbox)
    assert isinstance(inbox, DeliverInbox)
    (direct,) = inbox.deliveries
    b.do(SettleDeliveries(direct.source, 2, 2, Outcome.RELEASED, "", 5.0))
    world.run(1.0)
    assert a.engine.statistics().retries == 2
    b.kill()
    again = world.host("b")
    world.introduce(a, again)
    world.run_until(lambda: a.finished(ticket) and a.finished(posted))
    assert [failure.kind for failure in ticket.failures] == [FailureKind.PEER_RESTARTED]
    assert posted.accepted == 1
    assert (again.inbox, again.heard) == (["two"], [])
    assert a.engine.statistics().retries == 0


def test_an_invalid_pattern_from_a_peer_is_left_out() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Subscribe(1, "a..b"), Subscribe(2, "fine.>"))
    world.run(1.0)
    assert a.engine.peers()[0].topics == {"fine.>"}


def test_publications_of_one_key_and_priority_keep_their_order() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.subscribe(1, ">")
    world.run(1.0)
    for number in range(200):
        a.publish("t", str(number), key="k", lane=number % 10)
    world.run(3.0)
    assert [int(text) for _, text in b.heard] == list(range(200))


def test_a_publication_expires_unbegun_after_its_ttl() -> None:
    world = World(NodeOptions(link=LinkOptions(window_messages=1)))
    a, b = world.mesh("a", "b")
    b.subscribe(1, "t")
    b.accepts = False
    world.run(1.0)
    a.publish("t", "blocks")
    ticket = a.publish("t", "late", ttl=1.0)
    world.run_until(lambda: a.finished(ticket), 3.0)
    assert ticket.failures[0].kind is FailureKind.EXPIRED


# Many at once


def many(count: int, topic: str = "t") -> list[Record]:
    return [(head(Kind.PUBLICATION), topic, str(number).encode()) for number in range(count)]


def test_publications_that_go_together_are_one_block_for_all_receivers() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    for host in (b, c):
        host.subscribe(1, "t")
    world.run(1.0)
    tickets = [Ticket() for _ in range(20)]
    a.do(PublishMany(many(20), 4, list(tickets)))
    a._turn()
    spans = [
        span
        for peer in a.engine._peers
        for lane in peer.link._session.outgoing.values()
        for span in lane._spans
    ]
    assert len(spans) == 2
    assert isinstance(spans[0].block, Block)
    assert spans[0].block is spans[1].block
    world.run_until(lambda: all(map(a.finished, tickets)))
    assert b.heard == c.heard == [("t", str(number)) for number in range(20)]
    assert {(ticket.expected, ticket.accepted) for ticket in tickets} == {(2, 2)}


def test_one_ticket_counts_all_that_were_published_with_it() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    for host in (a, b, c):
        host.subscribe(1, "t")
    world.run(1.0)
    ticket = Ticket(20)
    a.do(PublishMany(many(20), 4, [ticket]))
    world.run_until(lambda: a.finished(ticket))
    assert (ticket.expected, ticket.accepted) == (60, 60)
    assert a.heard == b.heard == c.heard


def test_many_are_filtered_one_by_one_where_a_subscriber_filters() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    b.subscribe(1, "t")
    c.do(Subscribe(1, "t", Terms(Filter("even"))))
    world.run(1.0)
    records = [
        with_extra(record, Tag.TYPE, "odd" if number % 2 else "even")
        for number, record in enumerate(many(10))
    ]
    tickets = [Ticket() for _ in records]
    a.do(PublishMany(records, 4, list(tickets)))
    world.run_until(lambda: all(map(a.finished, tickets)))
    assert [ticket.accepted for ticket in tickets] == [2, 1] * 5
    assert len(b.heard) == 10
    assert c.heard == [("t", str(number)) for number in range(0, 10, 2)]


def test_many_for_nobody_are_done_at_once() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    tickets, all_of_them = [Ticket() for _ in range(9)], Ticket(9)
    a.do(PublishMany(many(9), 4, list(tickets)), PublishMany(many(9), 4, [all_of_them]))
    world.run(0.01)
    assert all(map(a.finished, (*tickets, all_of_them)))
    assert {ticket.expected for ticket in (*tickets, all_of_them)} == {0}


def test_of_many_at_most_once_go_as_many_as_there_is_room_for() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=5)))
    a, b = world.mesh("a", "b")
    b.subscribe(1, "t")
    world.run(1.0)
    tickets = [Ticket() for _ in range(9)]
    a.do(PublishMany(many(9), 4, list(tickets), at_most_once=True))
    world.run(1.0)
    assert all(map(a.finished, tickets))
    assert {ticket.expected for ticket in tickets} == {0}
    assert b.heard == [("t", str(number)) for number in range(5)]
    assert a.engine.statistics().missed == 4


def published_to_one_that_waits() -> tuple[World, list[Host], list[Ticket]]:
    """Publish nine messages to b, who accepts each, and to c, who has them and says nothing."""
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    b.subscribe(1, "t")
    c.subscribe(1, "t")
    c.accepts = False
    world.run(1.0)
    tickets = [Ticket() for _ in range(9)]
    a.do(PublishMany(many(9), 4, list(tickets)))
    world.run_until(lambda: bool(delivered(c)))
    return world, [a, b, c], tickets


def test_of_many_that_go_together_one_may_be_rejected() -> None:
    world, (a, _, c), tickets = published_to_one_that_waits()
    last = delivered(c)[-1][0]
    for seq in range(last.first_seq, last.last_seq + 1):
        outcome = Outcome.REJECTED if seq - last.first_seq == 3 else Outcome.ACCEPTED
        c.do(SettleDeliveries(last.source, seq, seq, outcome, "", 0.0))
    world.run_until(lambda: all(map(a.finished, tickets)))
    assert [ticket.accepted for ticket in tickets] == [2, 2, 2, 1, 2, 2, 2, 2, 2]
    assert [len(ticket.failures) for ticket in tickets] == [0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_a_restarted_subscriber_ends_each_of_many_by_itself() -> None:
    world, (a, _, c), tickets = published_to_one_that_waits()
    c.do(CloseNode())
    world.run_until(lambda: all(map(a.finished, tickets)))
    assert {ticket.accepted for ticket in tickets} == {1}
    assert {len(ticket.failures) for ticket in tickets} == {1}
