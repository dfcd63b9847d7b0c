"""Boxes of stored messages on a simulated network: who gets what is in one, and in which order."""

from tests.engines import Host, World
from zmesh.message import Ticket
from zmesh.storage_errors import JournalFull
from zmesh.testing.journal import Disk


def store(host: Host, *texts: str) -> Ticket:
    """Post durable messages to whoever is called `b`."""
    return host.post("b", *texts, durable=True, wall_ms=host.world.wall_ms)


def two() -> tuple[World, Host, Host]:
    """Return a sender with a disk, and the first bearer of the name."""
    world = World()
    sender = world.host("a", disk=Disk())
    first = world.host("first", known_as="b")
    world.introduce(sender, first)
    world.run(2.0)
    return world, sender, first


def test_the_next_bearer_of_a_name_gets_nothing_before_what_the_last_one_had() -> None:
    world, sender, first = two()
    first.accepts = False
    early = store(sender, "1", "2")
    world.run(0.5)
    assert first.inbox == ["1", "2"]
    first.kill()
    world.run(0.01)
    second = world.host("second", known_as="b")
    world.introduce(sender, second)
    late = store(sender, "3")
    world.run_until(lambda: sender.sees(first) is None and sender.sees(second) is not None)
    assert second.inbox == []
    world.run(5.0)
    assert second.inbox == ["1", "2", "3"]
    assert sender.finished(early)
    assert sender.finished(late)
    assert sender.engine.statistics().stored_out == 0


def test_the_end_of_another_session_takes_nothing_back() -> None:
    world, sender, first = two()
    first.kill()
    world.run(0.01)
    second = world.host("second", known_as="b")
    second.accepts = False
    world.introduce(sender, second)
    world.run_until(lambda: sender.sees(first) is None and sender.sees(second) is not None)
    store(sender, "1", "2")
    world.run(5.0)
    assert second.inbox == ["1", "2"]
    assert sender.engine._news.outbox.reread == 0


def test_outcomes_are_forgotten_though_numbers_were_refused_that_were_to_follow() -> None:
    world, sender, first = two()
    sender.post("absent", "x", durable=True, wall_ms=world.wall_ms)
    store(sender, "1")
    world.run(0.2)
    sender.kill()  # before it told that it has forgotten this one
    sender = world.host("a", disk=sender.disk)
    sender.scribe.error = JournalFull("path", 1, 1)
    store(sender, "2")
    world.introduce(sender, first)
    world.run(3.0)
    known = first.engine._turn.handled
    assert len(known) == 1, "what is older waits still"
    world.introduce(sender, world.host("absent"))
    world.run(5.0)
    assert len(known) == 0
