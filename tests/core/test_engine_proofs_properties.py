"""Whatever is said without a proof on a mesh with keys, it is as if it had not been said."""

from dataclasses import replace
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.telling import assert_unharmed, tell
from tests.engines import MESH, Host, World
from tests.wire import strategies
from zmesh.actions import IdentityClash, PeerChanged
from zmesh.events import CandidateFound, PathUp
from zmesh.ids import NO_LINK, LinkId, NodeId, Path
from zmesh.options import WireLimits
from zmesh.security.node_key import NodeKey
from zmesh.wire.codec import decode
from zmesh.wire.frames import Frame, Hello, Iam, Welcome

KEYS = [NodeKey.of(bytes([number]) * 32) for number in (1, 2, 3, 9)]
"""Of the hosts a, b and c, and of nobody."""

IDS = [key.id for key in KEYS]
PUBLICS = [key.public for key in KEYS]
INBOUND = b"\0\xff\0\0\1" + b"m" * 32
DIALED = 1

links = st.sampled_from([LinkId(b"linklink"), NO_LINK]) | strategies.link_ids


@st.composite
def false_frames(draw: st.DrawFn) -> Frame:
    """Something said in somebody's name, mostly as if it were true: but for the proof."""
    said = draw(strategies.iams | strategies.hellos | strategies.welcomes)
    changes: dict[str, object] = {"node": draw(st.sampled_from(IDS) | strategies.node_ids)}
    if isinstance(said, Iam | Hello) and draw(st.integers(0, 3)):
        changes["mesh"] = MESH
    if isinstance(said, Hello) and draw(st.integers(0, 3)):
        changes["to"] = IDS[0]
    if draw(st.booleans()):
        changes["incarnation"] = draw(st.integers(0, 3))
    if said.proof and draw(st.booleans()):
        changes["key"] = draw(st.sampled_from(PUBLICS))
    return replace(said, **changes)  # type: ignore[arg-type]


@cache
def overheard() -> tuple[tuple[LinkId, Frame], ...]:
    """What the same hosts said truly to each other, in a later life: on other connections."""
    said: dict[tuple[LinkId, Frame], None] = {}
    world = World(secured=True)

    def on_sent(_source: int, _target: int, parts: list[bytes]) -> None:
        packet = decode(parts, WireLimits())
        if isinstance(packet.frames[0], Iam | Hello | Welcome):
            said[packet.link, packet.frames[0]] = None

    world.network.on_sent = on_sent
    world._incarnations = dict.fromkeys("abc", 1)
    world.mesh("a", "b", "c")
    return tuple(said)


true_elsewhere = st.deferred(lambda: st.sampled_from(overheard()))
packets = st.lists(st.tuples(links, false_frames()) | true_elsewhere, min_size=1, max_size=6)


def known(host: Host) -> tuple[set[NodeId], set[Path], list[str], list[object]]:
    """What a host believes of others."""
    peers = host.engine._peers
    return (
        {peer.id for peer in peers},
        set(peers._by_path),
        sorted(peer.name for peer in peers),
        [(peer.link._link_id, peer.link.state, peer.link.incarnation) for peer in peers],
    )


def assert_nothing_came_of_it(host: Host, before: object, news: int) -> None:
    assert known(host) == before
    assert len(host.ordered(PeerChanged)) == news
    assert not host.ordered(IdentityClash)
    assert all(not list(peer.link._conduct._violations) for peer in host.engine._peers)


@settings(max_examples=60, deadline=None)
@given(packets)
def test_from_who_dialed_us_nothing_comes_of_it(said: list[tuple[LinkId, Frame]]) -> None:
    world = World(secured=True)
    a, b, _ = world.mesh("a", "b", "c")
    before, news = known(a), len(a.ordered(PeerChanged))
    for link, frame in said:
        tell(a, INBOUND, frame, link=link)
    assert_nothing_came_of_it(a, before, news)
    assert_unharmed(world, a, b)


@settings(max_examples=60, deadline=None)
@given(packets)
def test_from_whom_we_dialed_nothing_comes_of_it(said: list[tuple[LinkId, Frame]]) -> None:
    world = World(secured=True)
    a = world.host("a")
    a.do(CandidateFound("static", None, "x", ("tcp://127.0.0.1:9",)))
    a._turn()  # and before the network says that nobody listens there
    a.do(PathUp(DIALED))
    a._turn()
    before, news = known(a), len(a.ordered(PeerChanged))
    for link, frame in said:
        tell(a, DIALED, frame, link=link)
    assert_nothing_came_of_it(a, before, news)
    assert a.engine.statistics().membership.table.candidates <= 1
    b = world.host("b")
    world.introduce(a, b)
    world.run(3.0)
    assert_unharmed(world, a, b)
