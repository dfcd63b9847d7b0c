"""Packets that turn out too large, or cannot be made into bytes: nothing else suffers."""

import pytest

from tests.engines import World, direct
from zmesh.actions import DeliverInbox
from zmesh.events import EndpointsChanged, Post, SettleDeliveries
from zmesh.message import FailureKind, Kind, Outcome, Tag, Ticket, head
from zmesh.options import KIB, LinkOptions, NodeOptions, WireLimits


def test_what_does_not_fit_a_packet_comes_with_the_next() -> None:
    world = World(NodeOptions(wire=WireLimits(head_bytes_max=8 * KIB)))
    a, b = world.mesh("a", "b")
    texts = [f"{number} {'x' * 50}" for number in range(1000)]
    ticket = a.post("b", *texts)
    world.run_until(lambda: a.finished(ticket))
    assert b.inbox == texts
    assert ticket.accepted == 1000


def test_more_parts_than_a_packet_may_have_come_in_several() -> None:
    world = World(NodeOptions(link=LinkOptions(inline_bytes_max=16)))
    a, b = world.mesh("a", "b")
    texts = [f"{number} {'x' * 50}" for number in range(500)]
    ticket = a.post("b", *texts)
    world.run_until(lambda: a.finished(ticket))
    assert b.inbox == texts


def test_texts_of_four_byte_characters_on_every_lane_fit() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    key = "\N{MUSICAL SYMBOL G CLEF}" * 255
    target = "\N{CLAPPER BOARD}" * 255
    tickets = []
    for lane in [*range(10)] * 3:
        tickets.append(Ticket(200))
        records = [(head(Kind.DIRECT), target, b"")] * 200
        a.do(Post(b.id, lane, list(records), tickets[-1], key=key, ttl=60.0))
    world.run_until(lambda: all(a.finished(ticket) for ticket in tickets))
    assert [ticket.accepted for ticket in tickets] == [200] * 30
    assert len(b.inbox) == 6000


def test_small_records_with_much_beside_their_bodies_fit() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    for lane in range(10):  # so that each names nine predecessors
        a.post("b", "x", lane=lane, key="k")
    b.accepts = True
    large = 2**40
    numbers = (int(Tag.MESSAGE_ID), large, int(Tag.ATTEMPT), large, int(Tag.CORRELATION), large)
    record = (head(Kind.DIRECT), "", b"", numbers)
    tickets = [Ticket(1000) for _ in range(4)]
    for lane, ticket in enumerate(tickets):
        a.do(Post(b.id, lane, [record] * 1000, ticket, key="k", ttl=60.0))
    world.run_until(lambda: all(a.finished(ticket) for ticket in tickets))
    assert [ticket.accepted for ticket in tickets] == [1000] * 4


@pytest.mark.parametrize("size", [1, 300 * KIB])
def test_a_record_that_cannot_be_encoded_is_refused_and_the_others_arrive(size: int) -> None:
    world = World()
    a, b = world.mesh("a", "b")
    bad, good = Ticket(), Ticket(2)
    record = (head(Kind.DIRECT), "\ud800", bytes(size))
    a.do(
        Post(b.id, 4, [direct("one")], good),
        Post(b.id, 4, [record], bad),
        Post(b.id, 4, [direct("two")], good),
    )
    world.run_until(lambda: a.finished(good) and a.finished(bad))
    assert b.inbox == ["one", "two"]
    (failure,) = bad.failures
    assert failure.kind is FailureKind.REJECTED
    assert failure.reason.startswith("it cannot be sent: ")
    statistics = a.engine.statistics()
    assert (statistics.queued_messages, statistics.queued_bytes) == (0, 0)
    assert len(a.traces("packet_unsendable")) == 1
    later = a.post("b", "three")
    world.run_until(lambda: a.finished(later))
    assert b.inbox == ["one", "two", "three"]


def test_a_record_that_fits_no_packet_is_refused() -> None:
    world = World(NodeOptions(wire=WireLimits(head_bytes_max=8 * KIB)))
    a, b = world.mesh("a", "b")
    ticket = Ticket(3)
    records = [direct("one"), direct("x" * 9000), direct("two")]
    a.do(Post(b.id, 4, list(records), ticket))
    world.run_until(lambda: a.finished(ticket))
    assert b.inbox == ["one", "two"]
    assert [failure.kind for failure in ticket.failures] == [FailureKind.REJECTED]


def test_a_reason_that_is_not_quite_text_reaches_the_sender_as_far_as_it_can() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    ticket = a.post("b", "one")
    world.run(1.0)
    (action,) = b.ordered(DeliverInbox)
    assert isinstance(action, DeliverInbox)
    (delivery,) = action.deliveries
    b.do(SettleDeliveries(delivery.source, 1, 1, Outcome.REJECTED, "no file \udcff"))
    world.run_until(lambda: a.finished(ticket))
    assert ticket.failures[0].reason == "no file ?"


def test_a_node_with_more_addresses_than_a_packet_may_name_joins() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    link_local = [f"tcp://[fe80::{number:x}%eth0]:5000" for number in range(1, 20)]
    others = [f"tcp://172.17.{number}.1:5000" for number in range(20)]
    a.do(EndpointsChanged((*link_local, a.endpoint, *others)))
    world.introduce(a, b)
    world.run(3.0)
    (view,) = b.engine.peers()
    assert len(view.endpoints) == 16
    assert a.endpoint in view.endpoints
    assert not [endpoint for endpoint in view.endpoints if "fe80" in endpoint]
