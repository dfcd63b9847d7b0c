"""Packets of a test's own to a host of `tests.engines`, and what it answers."""

from tests.engines import Host, World
from zmesh.actions import PeerState, SendPackets
from zmesh.events import PacketsReceived
from zmesh.ids import NO_LINK, LinkId, Path
from zmesh.options import WireLimits
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import Frame, Packet


def parts_of(frame: Frame, link: LinkId = NO_LINK, number: int = 0) -> list[bytes]:
    return [bytes(p) for p in encode(Packet(link, number, (frame,)), WireLimits(), 16384)]


def tell(host: Host, path: Path, *frames: Frame, link: LinkId = NO_LINK) -> list[Frame]:
    """Let the host receive frames, each in a packet; return what it answers on that path."""
    before = len(host.actions)
    host.strangers.add(path)
    host.do(PacketsReceived([(path, parts_of(frame, link)) for frame in frames]))
    host.world.run(0.01)
    return [
        frame
        for action in host.actions[before:]
        if isinstance(action, SendPackets) and action.path == path
        for packet in action.packets
        for frame in decode([bytes(part) for part in packet], WireLimits()).frames
    ]


def assert_unharmed(world: World, a: Host, b: Host) -> None:
    ticket = a.post(b, "still here?")
    back = b.post(a, "still here!")
    world.run_until(lambda: a.finished(ticket) and b.finished(back), 1.0)
    assert ticket.accepted == back.accepted == 1
    assert a.sees(b) is b.sees(a) is PeerState.ALIVE
