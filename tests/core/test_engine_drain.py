"""Draining: what runs is finished, and the engine says when."""

from tests.engines import Host, World
from zmesh.actions import Drained, SendPackets
from zmesh.events import CloseNode, DrainNode, OpenInbox
from zmesh.message import Kind, Record, head
from zmesh.wire.codec import decode
from zmesh.wire.frames import Bye, ByeCode


def open_handler(_: Record) -> None:
    """Leave the request open."""


def drained(host: Host) -> Drained | None:
    found = host.ordered(Drained)
    assert len(found) <= 1
    return found[0] if found else None  # type: ignore[return-value]


def byes(host: Host, options_of: World) -> list[ByeCode]:
    return [
        frame.code
        for action in host.actions if isinstance(action, SendPackets)
        for packet in action.packets
        for frame in decode([bytes(part) for part in packet], options_of.options.wire).frames
        if isinstance(frame, Bye)
    ]  # fmt: skip


def test_a_node_with_nothing_to_do_is_drained_at_once() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    a.do(DrainNode(world.queue.now + 10.0))
    world.run(0.0)
    assert drained(a) == Drained(0, 0)
    world.run(1.0)
    assert b.engine.peers()[0].draining
    a.do(CloseNode())
    world.run(0.0)
    assert byes(a, world) == [ByeCode.DRAINED]


def test_a_drain_waits_for_what_was_sent_and_for_what_is_being_handled() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    a.serve("work", open_handler)
    b.accepts = False
    world.run(1.0)
    b.call("work")
    ticket = a.post("b", "one")
    world.run(1.0)
    a.do(DrainNode(world.queue.now + 60.0))
    world.run(5.0)
    assert drained(a) is None
    a.answer("done")
    world.run(1.0)
    assert drained(a) is None, "the message to b has no outcome yet"
    b.accepts = True
    b.kill()
    world.run_until(lambda: drained(a) is not None)
    assert a.finished(ticket)
    assert drained(a) == Drained(0, 0)


def test_a_drain_waits_for_open_calls_and_retries() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.serve("work", open_handler)
    world.run(1.0)
    call = a.call("work", timeout=20.0)
    world.run(1.0)
    a.do(DrainNode(world.queue.now + 60.0))
    world.run(1.0)
    assert drained(a) is None
    b.answer("done")
    world.run_until(lambda: drained(a) is not None)
    assert a.answers[call].failure is None


def test_a_drain_ends_at_its_deadline_and_says_what_is_left() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    a.accepts = b.accepts = False
    a.post("b", "one", "two")
    b.post("a", "three")
    world.run(1.0)
    start = world.queue.now
    a.do(DrainNode(start + 5.0))
    world.run_until(lambda: drained(a) is not None)
    assert world.queue.now == start + 5.0
    assert drained(a) == Drained(2, 1)
    a.do(CloseNode())
    world.run(0.0)
    assert byes(a, world) == [ByeCode.CLOSED]


def test_a_peer_that_joins_during_the_drain_is_told_too() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.accepts = False
    a.post("b", "keeps the drain open")
    a.do(DrainNode(world.queue.now + 60.0))
    c = world.host("c")
    world.introduce(a, c)
    world.run(3.0)
    assert c.engine.peers()[0].draining
    assert (head(Kind.DIRECT), drained(a)) == (0, None)


def test_a_drain_does_not_wait_for_messages_nobody_reads() -> None:
    world = World()
    a, b = world.host("a", inbox=False), world.host("b")
    world.introduce(a, b)
    world.run(3.0)
    before = b.post("a", "before")
    world.run(1.0)
    a.do(DrainNode(world.queue.now + 60.0))
    after = b.post("a", "after")
    world.run(5.0)
    assert drained(a) == Drained(0, 0)
    assert a.engine.statistics().unsettled_in == 0
    assert not b.finished(before), "it was given back, and may find a reader yet"
    a.do(OpenInbox())
    world.run_until(lambda: b.finished(before) and b.finished(after))
    assert sorted(a.inbox) == ["after", "before"]
