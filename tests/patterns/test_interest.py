"""What nodes tell each other of their interest: any amount of it, in records of bounded size."""

from tests.engines import Host, World
from zmesh.core.peers import RemotePeer
from zmesh.options import KIB
from zmesh.wire.frames import ControlNews, Interest


def patterns(count: int) -> list[str]:
    """Make patterns as long as they may be, of the characters that take most bytes."""
    return [f"{number:04}.{chr(0x1D11E) * 254}" for number in range(count)]


def peer(host: Host, other: Host) -> RemotePeer:
    found = host.engine._peers.get(other.id)
    assert found is not None
    return found


def test_a_thousand_long_patterns_are_told_to_those_who_join() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    for token, pattern in enumerate(patterns(1000)):
        a.subscribe(token, pattern)
    world.introduce(a, b)
    world.run(5.0)
    assert list(peer(b, a).topics) == patterns(1000)


def test_a_thousand_long_patterns_and_their_end_are_told_to_those_who_are_there() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    for token, pattern in enumerate(patterns(1000)):
        a.subscribe(token, pattern)
    world.run(5.0)
    assert list(peer(b, a).topics) == patterns(1000)
    for token in range(1000):
        a.unsubscribe(token)
    world.run(5.0)
    assert peer(b, a).topics == {}
    assert a.traces("packet_unsendable") == []


def test_no_record_is_too_large_to_share_a_packet() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    sizes = []
    send = peer(a, b).link.send_control

    def spy(record: ControlNews) -> None:
        assert isinstance(record, Interest)
        sizes.append(sum(len(text.encode()) for _, text in record.added))
        send(record)

    peer(a, b).link.send_control = spy  # type: ignore[method-assign]
    for token, pattern in enumerate(patterns(200)):
        a.subscribe(token, pattern)
    world.run(1.0)
    assert len(sizes) > 1
    assert max(sizes) <= 64 * KIB
