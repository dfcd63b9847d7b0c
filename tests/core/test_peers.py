"""The table of peers: hints, names and paths."""

import pytest

from tests.discovery.entropy import SeededEntropy
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Hints, Peer, Peers, RemotePeer
from zmesh.errors import AmbiguousPeer, PeerUnknown
from zmesh.ids import JournalId, MeshTag, NodeId, SessionId
from zmesh.options import LinkOptions, NodeOptions, WireLimits
from zmesh.reliable.handshake import LocalIdentity
from zmesh.reliable.link import Link
from zmesh.reliable.link_events import Liveness


def node(number: int) -> NodeId:
    return NodeId(bytes([number]) * 16)


def table(options: NodeOptions | None = None) -> Peers:
    loopback = Loopback(SessionId(bytes(16)), LinkOptions())
    return Peers(Peer(node(0), "me", loopback), options or NodeOptions())


def remote(number: int, *, present: bool = True) -> RemotePeer:
    local = LocalIdentity(MeshTag(b"testmesh"), node(0), "me", 1, JournalId(bytes(16)))
    link = Link(local, node(number), LinkOptions(), WireLimits(), SeededEntropy(1), 0.0)
    peer = RemotePeer(node(number), link)
    peer.present = present
    return peer


def add(peers: Peers, number: int, name: str, *, present: bool = True) -> RemotePeer:
    peer = remote(number, present=present)
    peers.add(peer)
    peers.rename(peer, name)
    return peer


def test_a_hint_is_found_by_name_until_every_source_took_it_back() -> None:
    hints = Hints(10)
    hints.add("mdns", node(1), "printer")
    hints.add("peer", node(1), "printer")
    assert hints.named("printer") == [node(1)]
    hints.remove("mdns", node(1))
    assert hints.named("printer") == [node(1)]
    hints.remove("peer", node(1))
    hints.remove("peer", node(1))
    assert hints.named("printer") == []
    assert node(1) not in hints


def test_a_renamed_hint_loses_its_old_name() -> None:
    hints = Hints(10)
    hints.add("mdns", node(1), "printer")
    hints.add("mdns", node(1), "scanner")
    assert hints.named("printer") == []
    assert hints.named("scanner") == [node(1)]


def test_a_hint_without_name_is_known_by_id() -> None:
    hints = Hints(10)
    hints.add("mdns", node(1), "")
    assert node(1) in hints
    assert hints.named("") == []


def test_the_oldest_hint_makes_room() -> None:
    hints = Hints(3)
    for number in range(1, 6):
        hints.add("mdns", node(number), f"n{number}")
    assert len(hints) == 3
    assert hints.named("n1") == hints.named("n2") == []
    assert hints.named("n5") == [node(5)]


def test_a_present_peer_outranks_an_absent_one_and_a_hint_of_the_same_name() -> None:
    peers = table()
    peers.hints.add("mdns", node(3), "printer")
    assert peers.resolve("printer") == node(3)
    absent = add(peers, 2, "printer", present=False)
    assert peers.resolve("printer") == absent.id
    present = add(peers, 1, "printer")
    assert peers.resolve("printer") == present.id


def lose(peer: RemotePeer) -> None:
    """Declare a peer lost, its session over."""
    peer.present = False
    peer.link._verdict.state = Liveness.LOST


def test_of_several_that_are_gone_for_good_a_name_means_the_last() -> None:
    peers = table()
    first, last = add(peers, 1, "printer"), add(peers, 2, "printer")
    lose(first)
    assert peers.resolve("printer") == last.id
    lose(last)
    assert first.is_gone
    assert last.is_gone
    assert peers.resolve("printer") == last.id


def test_one_that_is_heard_of_or_on_its_way_outranks_those_that_are_gone() -> None:
    peers = table()
    for number in (1, 2):
        lose(add(peers, number, "printer"))
        peers.hints.add("mdns", node(number), "printer")
    peers.hints.add("mdns", node(3), "printer")
    assert peers.resolve("printer") == node(3)
    calling = add(peers, 4, "printer", present=False)
    assert peers.resolve("printer") == calling.id


def test_one_on_its_way_outranks_one_that_may_return() -> None:
    peers = table()
    lost = add(peers, 1, "printer")
    lose(lost)
    lost.link._handshake.session = SessionId(bytes(16))
    assert not lost.is_gone
    assert peers.resolve("printer") == lost.id
    joining = add(peers, 2, "printer", present=False)
    assert peers.resolve("printer") == joining.id


def test_two_that_may_return_are_ambiguous() -> None:
    peers = table()
    for number in (1, 2):
        lost = add(peers, number, "printer")
        lose(lost)
        lost.link._handshake.session = SessionId(bytes(16))
    with pytest.raises(AmbiguousPeer):
        peers.resolve("printer")


def test_one_that_is_gone_and_calls_again_is_gone_no_more() -> None:
    peer = remote(1)
    lose(peer)
    peer.link.hello(7, 0.0)
    assert not peer.is_gone


def test_two_of_the_same_standing_are_ambiguous() -> None:
    peers = table()
    peers.hints.add("mdns", node(3), "printer")
    peers.hints.add("mdns", node(4), "printer")
    with pytest.raises(AmbiguousPeer):
        peers.resolve("printer")
    add(peers, 5, "me")
    with pytest.raises(AmbiguousPeer) as caught:
        peers.resolve("me")
    assert caught.value.ids == (node(0).hex(), node(5).hex())


def test_a_name_that_looks_like_an_id_is_a_name_first() -> None:
    peers = table()
    named = add(peers, 1, node(2).hex())
    other = add(peers, 2, "other")
    assert peers.resolve(node(2).hex()) == named.id
    peers.remove(named)
    assert peers.resolve(node(2).hex()) == other.id


def test_a_removed_peer_leaves_nothing_behind() -> None:
    peers = table()
    peer = add(peers, 1, "printer")
    peers.bind(7, peer)
    peers.bind(b"path", peer)
    peers.remove(peer)
    assert (len(peers), peers.on_path(7), peers.on_path(b"path")) == (0, None, None)
    assert peers._by_name == {}
    with pytest.raises(PeerUnknown):
        peers.resolve("printer")


def test_a_path_belongs_to_whom_it_was_bound_first() -> None:
    peers = table()
    first, second = add(peers, 1, "a"), add(peers, 2, "b")
    assert peers.bind(7, first)
    assert peers.bind(7, first)
    assert not peers.bind(7, second)
    assert peers.unbind(7) is first
    assert peers.bind(7, second)
    assert list(first.paths) == []


def test_inbound_paths_of_a_peer_are_bounded_and_the_one_in_use_stays() -> None:
    peers = table(NodeOptions(peer_paths_max=3))
    peer = add(peers, 1, "a")
    peer.link.path = b"0"
    for number in range(50):
        assert peers.bind(str(number).encode(), peer)
        assert len(peer.paths) <= 3
    assert peers.on_path(b"0") is peer
    assert peers.on_path(b"49") is peer
    assert peers.on_path(b"1") is None
