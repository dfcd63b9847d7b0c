"""Subscriptions that may miss some: what waits for them, what is dropped, what they are told."""

import pytest

from tests.engines import Host, World, body, publication
from zmesh.actions import DeliverPublications, PublicationsMissed
from zmesh.events import DrainNode, Publish, SettleDeliveries, Subscribe, Unsubscribe
from zmesh.message import Outcome, Tag, Ticket, extra
from zmesh.options import NodeOptions
from zmesh.terms import Filter, Terms, WhenFull

FEW = NodeOptions(backlog_in_flight_max=2)


class Reader:
    """The subscriptions of a host, each with what it got and missed, in order."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def got(self, token: int = 1) -> list[str]:
        """Return bodies, and of what was missed the count, as in `-3`."""
        found: list[str] = []
        for action in self.host.actions:
            if isinstance(action, DeliverPublications):
                for delivery, tokens in action.deliveries:
                    for record, each in zip(delivery.records, tokens, strict=True):
                        found += [body(record).decode(errors="replace")] * each.count(token)
            elif isinstance(action, PublicationsMissed):
                found += [f"-{count}" for number, count in action.counts if number == token]
        return found

    def accept(self) -> None:
        """Let the application accept what it has, and everything from now on."""
        self.host.accepts = True
        for action in self.host.ordered(DeliverPublications):
            assert isinstance(action, DeliverPublications)
            for delivery, _ in action.deliveries:
                first, last = delivery.first_seq, delivery.last_seq
                self.host.do(SettleDeliveries(delivery.source, first, last, Outcome.ACCEPTED))


def pair(options: NodeOptions = FEW) -> tuple[World, Host, Host, Reader]:
    """Return a publisher and a subscriber that holds what it gets."""
    world = World(options)
    a, b = world.mesh("a", "b")
    b.accepts = False
    return world, a, b, Reader(b)


def lossy(when_full: str, limit: int = 3, kind: str | None = None) -> Terms:
    wanted = None if kind is None else Filter(kind)
    return Terms(wanted, WhenFull(when_full), limit)


def publish(world: World, a: Host, *texts: str, topic: str = "t") -> None:
    for text in texts:
        ticket = a.publish(topic, text)
        world.run(0.0)
        assert (ticket.expected, a.finished(ticket)) == (0, True), "nobody is waited for"
    world.run(1.0)


def test_oldest_are_dropped_and_announced_before_the_next() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest")))
    world.run(1.0)
    publish(world, a, *"123456789")
    assert reader.got() == ["1", "2"], "so many are in flight"
    assert a.engine.statistics().backlog == 3
    assert a.engine.statistics().missed == 4
    reader.accept()
    world.run(1.0)
    assert reader.got() == ["1", "2", "-4", "7", "8", "9"]
    assert a.engine.open_work() == (0, 0)


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.RELEASED, Outcome.MODIFIED])
def test_what_comes_at_most_once_holds_nobody_up_where_it_was_not_accepted(
    outcome: Outcome,
) -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest")))
    world.run(1.0)
    for text in "123":
        a.do(Publish(publication("t", text), 4, Ticket(), at_most_once=True))
    world.run(1.0)
    assert reader.got() == ["1", "2"], "so many are in flight"
    for action in b.ordered(DeliverPublications):
        assert isinstance(action, DeliverPublications)
        for delivery, _ in action.deliveries:
            first, last = delivery.first_seq, delivery.last_seq
            b.do(SettleDeliveries(delivery.source, first, last, outcome))
    world.run(60.0)
    assert reader.got() == ["1", "2", "3"]


def test_newest_are_dropped_and_announced_when_nothing_waits_any_more() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("drop_newest")))
    world.run(1.0)
    publish(world, a, *"123456789")
    reader.accept()
    world.run(1.0)
    assert reader.got() == ["1", "2", "3", "4", "5", "-4"]
    publish(world, a, "10")
    assert reader.got()[-1] == "10"


def test_newest_are_announced_where_they_are_missing() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("drop_newest")))
    world.run(1.0)
    publish(world, a, *"1234567")
    b.accepts = True
    first = b.ordered(DeliverPublications)[0]
    assert isinstance(first, DeliverPublications)
    delivery = first.deliveries[0][0]
    b.accepts = False
    b.do(SettleDeliveries(delivery.source, 1, 1, Outcome.ACCEPTED))
    world.run(1.0)
    assert reader.got() == ["1", "2", "3"]
    publish(world, a, "8", "9")
    reader.accept()
    world.run(1.0)
    assert reader.got() == ["1", "2", "3", "4", "5", "-2", "8", "-1"]


def test_latest_of_each_topic_waits() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, ">", lossy("latest")))
    world.run(1.0)
    for number in range(1, 6):
        for topic in ("x", "y"):
            publish(world, a, f"{topic}{number}", topic=topic)
    reader.accept()
    world.run(1.0)
    assert reader.got() == ["x1", "y1", "-6", "x5", "y5"]


def test_latest_of_more_topics_than_the_limit_drops_the_oldest() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, ">", lossy("latest", 2)))
    world.run(1.0)
    for topic in "abcdef":
        publish(world, a, topic, topic=topic)
    reader.accept()
    world.run(1.0)
    assert reader.got() == ["a", "b", "-2", "e", "f"]


def test_disconnect_ends_the_subscription_at_the_publisher() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("disconnect")))
    world.run(1.0)
    publish(world, a, *"123456789")
    assert a.engine.statistics().backlog == 0
    reader.accept()
    world.run(1.0)
    assert reader.got() == ["1", "2", "-1"], "the first it missed ended it"
    publish(world, a, "more")
    assert reader.got()[-1] == "-1"
    b.do(Unsubscribe(1), Subscribe(2, "t", lossy("disconnect")))
    world.run(1.0)
    publish(world, a, "again")
    assert reader.got(2) == ["again"]


def test_a_healthy_subscriber_misses_nothing() -> None:
    world, a, b, reader = pair()
    b.accepts = True
    b.do(Subscribe(1, "t", lossy("drop_oldest")))
    world.run(1.0)
    for number in range(100):
        publish(world, a, str(number))
    assert reader.got() == list(map(str, range(100)))
    assert a.engine.statistics().missed == 0


def test_who_wants_everything_gets_it_and_all_of_the_node_with_it() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest")), Subscribe(2, "t"))
    world.run(1.0)
    tickets = [a.publish("t", text) for text in "123456789"]
    world.run(1.0)
    assert [ticket.expected for ticket in tickets] == [1] * 9
    assert reader.got(1) == reader.got(2) == list("123456789")


def test_several_that_may_miss_some_get_and_miss_the_same_by_the_mildest() -> None:
    world, a, b, reader = pair()
    b.do(
        Subscribe(1, "t", lossy("latest")),
        Subscribe(2, "*", lossy("drop_oldest", 4)),
        Subscribe(3, ">", lossy("drop_newest", 9)),
    )
    world.run(1.0)
    publish(world, a, *"123456789")
    assert a.engine.statistics().backlog == 4
    reader.accept()
    world.run(1.0)
    for token in (1, 2, 3):
        assert reader.got(token) == ["1", "2", "-3", "6", "7", "8", "9"]


def test_ended_by_the_limit_of_one_it_waits_for_the_others() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("disconnect", 2)), Subscribe(2, "t", lossy("latest", 9)))
    world.run(1.0)
    publish(world, a, *"123456")
    reader.accept()
    world.run(1.0)
    assert reader.got(1)[:3] == ["1", "2", "-1"]
    assert reader.got(2) == ["1", "2", "-3", "6"]


def test_waiting_is_bounded_for_a_peer_in_messages_and_bytes() -> None:
    world, a, b, reader = pair(NodeOptions(backlog_in_flight_max=1, backlog_max=5))
    b.do(Subscribe(1, "t", lossy("drop_oldest", 1000)))
    world.run(1.0)
    publish(world, a, *map(str, range(20)))
    assert a.engine.statistics().backlog == 5
    world, a, b, reader = pair(NodeOptions(backlog_in_flight_max=1, backlog_bytes_max=1000))
    b.do(Subscribe(1, "t", lossy("drop_newest", 1000)))
    world.run(1.0)
    publish(world, a, *["x" * 200] * 20)
    assert a.engine.statistics().backlog == 4
    reader.accept()
    world.run(1.0)
    assert reader.got()[-1] == "-15"


def test_in_flight_is_bounded_in_bytes() -> None:
    world, a, b, reader = pair(NodeOptions(backlog_in_flight_bytes_max=500))
    b.do(Subscribe(1, "t", lossy("drop_oldest", 1000)))
    world.run(1.0)
    publish(world, a, *["x" * 200] * 20)
    assert len(reader.got()) == 3


def test_what_one_has_taken_up_makes_the_other_wait_and_not_block() -> None:
    """Direct messages that nobody settles leave publications their room in the link."""
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest")))
    a.post(b, *map(str, range(500)))
    world.run(1.0)
    publish(world, a, "1")
    assert reader.got() == ["1"]


def test_expired_while_it_waits_is_missed() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest")))
    world.run(1.0)
    publish(world, a, "1", "2")
    a.publish("t", "3", ttl=1.0)
    a.publish("t", "4", ttl=60.0)
    world.run(2.0)
    reader.accept()
    world.run(1.0)
    assert reader.got() == ["1", "2", "-1", "4"]


def test_filters_hold_back_what_would_wait() -> None:
    world, a, b, _ = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest", kind="reading")))
    world.run(1.0)
    publish(world, a, *"12345")
    assert a.engine.statistics().backlog == 0


def test_what_is_given_back_comes_again_and_counts_as_in_flight() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest")))
    world.run(1.0)
    publish(world, a, *"12345")
    delivery = b.ordered(DeliverPublications)[0]
    assert isinstance(delivery, DeliverPublications)
    source, seq = delivery.deliveries[0][0].source, delivery.deliveries[0][0].first_seq
    b.do(SettleDeliveries(source, seq, seq, Outcome.MODIFIED))
    world.run(1.0)
    assert reader.got() == ["1", "2", "1"]
    attempts = [
        extra(record, Tag.ATTEMPT)
        for action in b.ordered(DeliverPublications)
        if isinstance(action, DeliverPublications)
        for each, _ in action.deliveries
        for record in each.records
    ]
    assert attempts == [None, None, 2]
    reader.accept()
    world.run(1.0)
    assert reader.got() == ["1", "2", "1", "3", "4", "5"]


def test_ended_subscription_leaves_nothing_waiting() -> None:
    world, a, b, _ = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest")))
    world.run(1.0)
    publish(world, a, *"123456789")
    b.do(Unsubscribe(1))
    world.run(1.0)
    assert a.engine.statistics().backlog == 0
    assert a.engine.statistics().missed == 4, "what was missed stays counted"


def test_lost_subscriber_leaves_nothing_waiting() -> None:
    world, a, b, _ = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest")))
    world.run(1.0)
    publish(world, a, *"123456789")
    b.kill()
    world.run(5.0)
    assert a.engine.statistics().backlog == 0
    assert a.engine.open_work() == (0, 0)


def test_link_that_breaks_and_returns_loses_nothing_but_what_was_told() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest")))
    world.run(1.0)
    publish(world, a, *"1234")
    world.network.reset(a.index, b.index)
    publish(world, a, *"56789")
    reader.accept()
    world.run(5.0)
    assert reader.got() == ["1", "2", "-4", "7", "8", "9"]


def test_drain_waits_for_what_waits() -> None:
    world, a, b, reader = pair()
    b.do(Subscribe(1, "t", lossy("drop_oldest")))
    world.run(1.0)
    publish(world, a, *"12345")
    a.do(DrainNode(world.queue.now + 10.0))
    world.run(1.0)
    assert a.engine.open_work() == (5, 0)
    reader.accept()
    world.run(1.0)
    assert reader.got() == list("12345")
    assert a.engine.open_work() == (0, 0)


def test_own_subscriptions_that_may_miss_some_get_everything_here() -> None:
    """What waits in the application is for the application to drop."""
    world, a, _, _ = pair()
    a.do(Subscribe(1, "t", lossy("drop_oldest", 1)))
    world.run(1.0)
    for text in "12345":
        a.publish("t", text)
    world.run(1.0)
    assert Reader(a).got() == list("12345")


def test_many_are_told_in_records_of_bounded_size() -> None:
    world, a, b, reader = pair()
    for token in range(1, 12):
        b.do(Subscribe(token, "t", lossy("drop_oldest", 1)))
    world.run(1.0)
    publish(world, a, *"12345")
    reader.accept()
    world.run(1.0)
    for token in range(1, 12):
        assert reader.got(token) == ["1", "2", "-2", "5"]
