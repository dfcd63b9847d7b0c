"""Filters and replays between whole nodes on a simulated network."""

from collections.abc import Mapping

import pytest

from tests.engines import Host, World
from tests.patterns.test_backlog import Reader
from tests.patterns.test_filters import record_of
from tests.patterns.test_publish_subscribe import delivered
from zmesh.core.peers import RemotePeer
from zmesh.errors import InvalidOption, UsageError
from zmesh.events import CloseNode, Publish, Subscribe, Unsubscribe
from zmesh.message import Kind, Record, Tag, Ticket, extra, head, with_extra
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns import filters
from zmesh.terms import Filter, Terms, WhenFull
from zmesh.wire.bodies import HeaderValue
from zmesh.wire.frames import Interest

REPLAY = Terms(replay=True)


def send(
    host: Host,
    body: object,
    kind: str | None = None,
    headers: Mapping[str, HeaderValue] | None = None,
    topic: str = "t",
    keep: int | None = None,
    ttl: float | None = None,
) -> Ticket:
    record = record_of(body, kind, headers)
    ticket = Ticket()
    publish = Publish((record[0], topic, *record[2:]), 4, ticket, ttl=ttl, keep=keep)
    host.do(publish)
    return ticket


def keep(
    host: Host, text: str, depth: int = 1, topic: str = "t", ttl: float | None = None
) -> Ticket:
    return send(host, text.encode(), topic=topic, keep=depth, ttl=ttl)


def peer(host: Host, other: Host) -> RemotePeer:
    found = host.engine._peers.get(other.id)
    assert found is not None
    return found


# Filters


def test_what_nobody_wants_does_not_travel() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Subscribe(1, "t", Terms(Filter(where=(("unit", "C"),)))))
    world.run(1.0)
    before = b.engine.statistics().packets_received
    ticket = send(a, 1, headers={"unit": "F"})
    world.run(0.1)
    assert a.finished(ticket)
    assert (ticket.expected, b.engine.statistics().packets_received) == (0, before)
    ticket = send(a, 2, headers={"unit": "C"})
    world.run_until(lambda: a.finished(ticket))
    assert (ticket.accepted, len(Reader(b).got())) == (1, 1)


def test_node_gets_it_once_and_each_of_its_subscriptions_what_it_wants() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(
        Subscribe(1, "t", Terms(Filter("reading"))),
        Subscribe(2, "t", Terms(Filter(where=(("unit", "C"),)))),
        Subscribe(3, ">", Terms(Filter(content="@ > `20`"))),
        Subscribe(4, "t", Terms(Filter("reading"))),
        Subscribe(5, "other"),
    )
    world.run(1.0)
    sent = b.engine.statistics().links[a.id]
    tickets = [
        send(a, 21, "reading", {"unit": "C"}), send(a, 19, "reading", {"unit": "F"}),
        send(a, 22, "alarm"), send(a, 18, "alarm"),
    ]  # fmt: skip
    world.run(1.0)
    assert [ticket.expected for ticket in tickets] == [1, 1, 1, 0]
    packed = {number: bytes(record_of(number)[2]).decode() for number in (21, 19, 22)}
    reader = Reader(b)
    assert reader.got(1) == reader.got(4) == [packed[21], packed[19]]
    assert reader.got(2) == [packed[21]]
    assert reader.got(3) == [packed[21], packed[22]]
    assert reader.got(5) == []
    assert len(b.heard) == 3, "once each"
    assert sent.duplicates == 0


def test_subscription_without_filter_gets_everything_beside_one_with() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Subscribe(1, "t", Terms(Filter("reading"))), Subscribe(2, "t"))
    world.run(1.0)
    send(a, 1, "alarm")
    world.run(1.0)
    assert (len(Reader(b).got(1)), len(Reader(b).got(2))) == (0, 1)


def test_own_subscriptions_filter_too() -> None:
    world = World()
    (a,) = world.mesh("a")
    a.do(Subscribe(1, "t", Terms(Filter("reading"))))
    world.run(0.1)
    tickets = [send(a, 1, "reading"), send(a, 2, "alarm")]
    world.run(0.1)
    assert [ticket.expected for ticket in tickets] == [1, 0]
    assert len(Reader(a).got()) == 1


def test_topics_with_filters_are_seen_by_peers() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Subscribe(1, "x.*", Terms(Filter("reading"))), Subscribe(2, "y", REPLAY))
    world.run(1.0)
    assert a.engine.peers()[0].topics == {"x.*", "y"}
    b.do(Unsubscribe(1), Unsubscribe(2))
    world.run(1.0)
    assert a.engine.peers()[0].topics == frozenset()


def test_publisher_without_jmespath_sends_and_the_subscriber_filters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Subscribe(1, "t", Terms(Filter(content="@ > `20`"))))
    world.run(1.0)
    monkeypatch.setattr(filters, "HAS_CONTENT", False)
    tickets = [send(a, number) for number in (19, 21)]
    a._turn()
    monkeypatch.undo()
    world.run(1.0)
    assert [(ticket.expected, ticket.accepted) for ticket in tickets] == [(1, 1), (1, 1)]
    assert len(Reader(b).got()) == 1
    assert b.engine.statistics().unwanted == 1


def test_hostile_filter_affects_its_own_subscriber_alone() -> None:
    world = World(NodeOptions(filter_steps_max=500, filter_steps_per_second=1000))
    a, b, c = world.mesh("a", "b", "c")
    grows = "[@,@]" + "|[@,@]" * 14 + "|to_string(@)=='x'"
    b.do(
        *(Subscribe(n, "t", Terms(Filter(content=f"{grows} || n == `{n}`"))) for n in range(1, 9))
    )
    c.do(Subscribe(1, "t", Terms(Filter(content="n > `0`"))))
    world.run(1.0)
    tickets = [send(a, {"n": n + 1}) for n in range(10)]
    world.run(1.0)
    assert len(Reader(c).got()) == 10
    assert all(ticket.accepted >= 1 for ticket in tickets)
    assert 0 < a.engine.statistics().filters_failed <= 4, "then its steps were used up"
    assert a.engine.statistics().filters_passed_over > 0
    assert Reader(b).got() == []


def test_terms_that_are_not_valid_are_left_out_and_counted() -> None:
    world = World(NodeOptions(filters_max=1))
    a, b = world.mesh("a", "b")
    texts = ["nonsense", '[1,"a..b",{}]', '[2,"t",{"type":"x"}]', '[3,"t",{"type":"y"}]']
    entries = tuple(("subscription", text) for text in texts)
    peer(b, a).link.send_control(Interest(entries, ()))
    b.do(Subscribe(9, "fine"))
    world.run(1.0)
    assert a.engine.peers()[0].topics == {"t", "fine"}
    assert sum(a.engine.statistics().defects.values()) == 1
    peer(b, a).link.send_control(Interest((), entries))
    b.do(Unsubscribe(9))
    world.run(1.0)
    assert a.engine.peers()[0].topics == frozenset()


def test_what_cannot_be_told_is_refused_at_once() -> None:
    world = World(NodeOptions(filters_max=1))
    (a,) = world.mesh("a")
    wanted = Terms(Filter("reading"))
    a.engine.check_subscribe("t", wanted)
    a.do(Subscribe(1, "t", wanted))
    world.run(0.1)
    with pytest.raises(UsageError, match="1 subscriptions with a filter"):
        a.engine.check_subscribe("t", wanted)
    a.engine.check_subscribe("t", REPLAY)
    with pytest.raises(InvalidOption, match="size of pattern and filter"):
        a.engine.check_subscribe("t" * 900, Terms(Filter("x" * 900)))


def test_a_full_receiver_with_a_filter_counts_for_the_room_and_one_that_may_miss_some_not() -> (
    None
):
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=5)))
    a, b, c = world.mesh("a", "b", "c")
    b.do(Subscribe(1, "t", Terms(Filter("reading"))))
    c.do(Subscribe(1, "u", Terms(when_full=WhenFull.LATEST)))
    world.run(1.0)
    assert a.engine.room_to_publish("t") == 5
    assert a.engine.room_to_publish("u") is None
    assert a.engine.receivers((head(Kind.PUBLICATION), "u", b"")) == ["c"]


# Replays


def test_late_joiner_gets_the_last_value_and_then_what_follows() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    for text in "123":
        keep(a, text)
    world.run(1.0)
    b.do(Subscribe(1, "t", REPLAY))
    world.run(1.0)
    keep(a, "4")
    send(a, b"5")
    world.run(1.0)
    assert Reader(b).got() == ["3", "4", "5"]
    tags = [extra(r, Tag.RETAINED) for d in delivered_records(b) for r in d]
    assert tags == [1, None, None]
    assert a.engine.statistics().replayed == 1


def delivered_records(host: Host) -> list[list[Record]]:
    return [list(delivery.records) for delivery, _ in delivered(host)]


def test_history_comes_in_the_order_published() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    for number in range(10):
        keep(a, f"{number}", 3, topic=f"x.{number % 2}")
    world.run(1.0)
    b.do(Subscribe(1, "x.*", REPLAY))
    world.run(1.0)
    assert Reader(b).got() == ["4", "5", "6", "7", "8", "9"]


def test_who_joins_the_mesh_later_gets_it_too_whichever_side_it_is() -> None:
    world = World()
    a = world.host("a")
    keep(a, "kept before")
    b = world.host("b")
    b.do(Subscribe(1, "t", REPLAY))
    world.run(1.0)
    world.introduce(a, b)
    world.run(3.0)
    assert Reader(b).got() == ["kept before"]


def test_who_asks_for_no_replay_gets_none() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    keep(a, "1")
    b.do(Subscribe(1, "t"))
    world.run(1.0)
    keep(a, "2")
    world.run(1.0)
    assert Reader(b).got() == ["2"]


def test_own_late_subscription_gets_what_is_kept() -> None:
    world = World()
    (a,) = world.mesh("a")
    keep(a, "1")
    a.do(Subscribe(1, "t", REPLAY))
    keep(a, "2")
    world.run(1.0)
    assert Reader(a).got() == ["1", "2"]


def test_replay_is_for_the_new_subscription_alone() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Subscribe(1, ">", REPLAY))
    world.run(1.0)
    keep(a, "1", 5)
    keep(a, "2", 5)
    world.run(1.0)
    b.do(Subscribe(2, "t", REPLAY), Subscribe(3, "*"))
    world.run(1.0)
    keep(a, "3", 5)
    world.run(1.0)
    reader = Reader(b)
    assert reader.got(1) == reader.got(2) == ["1", "2", "3"]
    assert reader.got(3) == ["3"]


def test_no_gap_and_no_duplicate_however_much_is_under_way_when_it_begins() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Subscribe(1, "t"))
    world.run(1.0)
    for number in range(50):
        keep(a, str(number), 1000)
        world.run(0.0001)
        if number == 20:
            b.do(Subscribe(2, "*", REPLAY))
    world.run(1.0)
    assert Reader(b).got(1) == list(map(str, range(50)))
    assert Reader(b).got(2) == list(map(str, range(50)))


def test_replay_waits_for_room_and_nothing_is_lost_by_it() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=3)))
    a, b = world.mesh("a", "b")
    for number in range(5):
        keep(a, str(number), 5)
    b.accepts = False
    b.subscribe(9, "other")
    world.run(1.0)
    for number in range(3):
        a.publish("other", str(number))
    world.run(0.5)
    b.do(Subscribe(1, "t", REPLAY))
    world.run(0.5)
    keep(a, "5", 5)
    world.run(0.5)
    reader = Reader(b)
    assert reader.got(1) == [], "there is no room for it yet"
    reader.accept()
    world.run(2.0)
    assert reader.got(1) == ["1", "2", "3", "4", "5"]


def test_ended_before_its_replay_it_gets_none() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_messages_max=3)))
    a, b = world.mesh("a", "b")
    keep(a, "1")
    b.do(Subscribe(1, "t", REPLAY), Unsubscribe(1))
    world.run(1.0)
    assert a.engine.statistics().replayed == 0
    b.subscribe(9, "other")
    b.accepts = False
    world.run(1.0)
    for number in range(3):
        a.publish("other", str(number))
    b.do(Subscribe(2, "t", REPLAY))
    world.run(1.0)
    b.do(Unsubscribe(2))
    world.run(1.0)
    Reader(b).accept()
    world.run(1.0)
    assert a.engine.statistics().replayed == 0


def test_filters_hold_for_replays() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    send(a, b"1", "reading", topic="t.1", keep=1)
    send(a, b"2", "alarm", topic="t.2", keep=1)
    b.do(Subscribe(1, "t.*", Terms(Filter("alarm"), replay=True)))
    world.run(1.0)
    assert Reader(b).got() == ["2"]
    assert a.engine.statistics().replayed == 1


def test_subscriptions_that_may_miss_some_get_their_replay_first() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    keep(a, "1")
    b.do(Subscribe(1, "t", Terms(when_full=WhenFull.DROP_OLDEST, replay=True)))
    world.run(1.0)
    keep(a, "2")
    world.run(1.0)
    assert Reader(b).got() == ["1", "2"]


def test_cleared_topic_is_not_replayed() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    keep(a, "1")
    send(a, b"cleared", keep=0)
    b.do(Subscribe(1, "t", REPLAY))
    world.run(1.0)
    assert Reader(b).got() == []
    assert a.engine.statistics().retained == 0


def test_what_is_kept_lives_as_long_as_it_was_given() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    keep(a, "short", topic="t.1", ttl=1.0)
    keep(a, "long", topic="t.2", ttl=60.0)
    world.run(2.0)
    b.do(Subscribe(1, "t.*", REPLAY))
    world.run(1.0)
    assert Reader(b).got() == ["long"]
    (records,) = delivered_records(b)
    ttl = extra(records[0], Tag.TTL_MS)
    assert isinstance(ttl, int)
    assert 50_000 < ttl < 58_500


def test_topics_that_had_to_make_room_are_told_of() -> None:
    world = World(NodeOptions(retained_max=1))
    (a,) = world.mesh("a")
    keep(a, "1", topic="t.1")
    keep(a, "2", topic="t.2")
    world.run(0.1)
    assert [trace.fields for trace in a.traces("retained_forgotten")] == [{"topic": "t.1"}]
    assert a.engine.statistics().topics_forgotten == 1


def test_session_that_begins_anew_brings_a_replay() -> None:
    """Who was away for longer than it is waited for is a late joiner again."""
    world = World(NodeOptions(link=LinkOptions(session_linger=2.0)))
    a, b = world.mesh("a", "b")
    b.do(Subscribe(1, "t", REPLAY))
    world.run(1.0)
    keep(a, "1")
    world.run(1.0)
    world.part(a, b)
    world.run(60.0)
    keep(a, "2")
    world.join(a, b)
    world.run(60.0)
    keep(a, "3")
    world.run(1.0)
    assert Reader(b).got() == ["1", "2", "3"]


def test_restarted_publisher_begins_anew() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Subscribe(1, "t", REPLAY))
    world.run(1.0)
    keep(a, "1")
    world.run(1.0)
    a.kill()
    again = world.host("a")
    keep(again, "2")
    world.introduce(again, b)
    world.run(5.0)
    keep(again, "3")
    world.run(1.0)
    assert Reader(b).got() == ["1", "2", "3"]


def test_a_replay_for_a_subscription_that_is_not_there_is_accepted() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Subscribe(7, "t"))
    world.run(1.0)
    record = with_extra((head(Kind.PUBLICATION), "t", b"x"), Tag.RETAINED, 3)
    ticket = Ticket()
    a.do(Publish(record, 4, ticket))
    world.run(1.0)
    assert ticket.accepted == 1
    assert b.engine.statistics().unwanted == 1


def test_closing_leaves_nothing_open() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    b.do(Subscribe(1, "t", Terms(when_full=WhenFull.DROP_OLDEST, replay=True)))
    keep(a, "1")
    world.run(1.0)
    for text in "2345":
        keep(a, text)
    world.run(1.0)
    a.do(CloseNode())
    world.run(1.0)
    assert b.engine.statistics().present == 0
