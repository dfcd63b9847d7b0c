"""What the engine makes of packets that no honest peer sends: nothing, for anybody else."""

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.telling import assert_unharmed, parts_of, tell
from tests.engines import MESH, World
from zmesh.actions import DeliverInbox, HangUp, IdentityClash, PeerState, SendPackets, ShutOut
from zmesh.events import (
    CandidateFound,
    InboundClosed,
    PacketsReceived,
    PathCause,
    PathDown,
    PathFull,
    PathUp,
    PathWritable,
)
from zmesh.ids import (
    JournalId,
    LinkId,
    MeshTag,
    NodeId,
    SessionId,
)
from zmesh.message import Kind, Record, head
from zmesh.options import NodeOptions, WireLimits
from zmesh.wire.codec import decode
from zmesh.wire.frames import (
    Bye,
    ByeCode,
    Data,
    Error,
    ErrorCode,
    Fenced,
    Hello,
    Iam,
    PeerHint,
    Ping,
    Who,
)

STRANGER = b"\0stranger"
OTHER_MESH = MeshTag(b"another!")
LINK = LinkId(b"linklink")


def hello(node: NodeId, to: NodeId, mesh: MeshTag = MESH) -> Hello:
    return Hello(
        mesh=mesh, node=node, to=to, name="mallory", incarnation=1,
        journal=JournalId(bytes(16)), attempt=1, resume=None, fresh=SessionId(b"f" * 16),
        endpoints=(), lanes=(),
    )  # fmt: skip


def test_who_is_answered_with_identity_and_known_peers() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    (iam,) = tell(a, STRANGER, Who(MESH, NodeId(b"s" * 16)))
    assert isinstance(iam, Iam)
    assert (iam.node, iam.name, iam.incarnation, iam.endpoints) == (a.id, "a", 1, (a.endpoint,))
    assert iam.known == (PeerHint(b.id, "b", (b.endpoint,)),)


def test_asking_again_at_once_brings_no_second_list_of_peers() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    tell(a, STRANGER, Who(MESH, NodeId(b"s" * 16)))
    (iam,) = tell(a, STRANGER, Who(MESH, NodeId(b"s" * 16)))
    assert isinstance(iam, Iam)
    assert iam.known == ()


def test_peers_that_say_much_of_themselves_are_told_as_far_as_a_packet_has_room() -> None:
    world = World()
    a, *others = world.mesh("a", *(f"n{number}" for number in range(20)))
    for other in others:
        peer = a.engine._peers.get(other.id)
        assert peer is not None
        peer.endpoints = ("x" * 1024,) * 16  # nobody checks what a peer says of itself
    told: set[bytes] = set()
    for number in range(4):
        (iam,) = tell(a, f"\0{number}".encode(), Who(MESH, NodeId(b"stranger" * 2)))
        assert isinstance(iam, Iam)
        assert 0 < len(iam.known) < 20
        told |= {hint.node for hint in iam.known}
    assert len(told) == 20


def test_known_peers_are_told_in_turns_where_there_are_many() -> None:
    world = World(NodeOptions(wire=WireLimits(known_max=2)))
    a, *_ = world.mesh("a", "b", "c", "d")
    told: set[str] = set()
    for _ in range(2):
        (iam,) = tell(a, STRANGER, Who(MESH, NodeId(b"s" * 16)))
        assert isinstance(iam, Iam)
        assert len(iam.known) == 2
        told |= {hint.name for hint in iam.known}
        world.run(5.0)
    assert told == {"b", "c", "d"}


def test_another_mesh_is_told_so_and_sees_nothing() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    stranger = NodeId(b"s" * 16)
    (error,) = tell(a, STRANGER, Who(OTHER_MESH, stranger))
    assert isinstance(error, Error)
    assert error.code is ErrorCode.WRONG_MESH
    (error,) = tell(a, b"\0another", hello(stranger, a.id, OTHER_MESH), link=LINK)
    assert isinstance(error, Error)
    assert error.code is ErrorCode.WRONG_MESH
    assert a.engine.statistics().peers == 1
    assert_unharmed(world, a, b)


def test_a_dialed_node_of_another_mesh_is_hung_up() -> None:
    world = World()
    a, b = world.host("a"), world.host("b")
    b.engine = type(b.engine)(
        replace(b.engine._local, mesh=OTHER_MESH), NodeOptions(), b.engine._entropy, 0.0
    )
    world.introduce(a, b)
    world.run(5.0)
    assert a.engine.peers() == b.engine.peers() == []
    assert a.engine.statistics().membership.wrong_mesh > 0
    assert a.ordered(HangUp)


def test_iam_of_another_mesh_on_a_dialed_path_is_hung_up() -> None:
    world = World()
    a = world.host("a")
    a.do(CandidateFound("static", None, "x", ("tcp://127.0.0.1:9",)))
    a._turn()  # and before the network says that nobody listens there
    a.do(PathUp(1))
    a._turn()
    tell(a, 1, Iam(OTHER_MESH, NodeId(b"s" * 16), "s", 1, (), ()))
    assert a.engine.statistics().membership.wrong_mesh == 1
    assert a.engine.statistics().defects == {"wrong mesh": 1}
    assert HangUp(1) in a.actions


def test_hello_for_another_node_is_refused() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    (error,) = tell(a, STRANGER, hello(NodeId(b"s" * 16), b.id), link=LINK)
    assert isinstance(error, Error)
    assert error.code is ErrorCode.WRONG_NODE
    assert a.engine.statistics().peers == 1


def test_hello_with_our_own_id_is_refused() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    (error,) = tell(a, STRANGER, hello(a.id, a.id), link=LINK)
    assert isinstance(error, Error)
    assert error.code is ErrorCode.DUPLICATE_IDENTITY
    assert not a.ordered(IdentityClash)
    assert_unharmed(world, a, b)


def test_a_packet_of_no_link_is_answered_once_a_second() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    answers = tell(a, STRANGER, *[Ping(1)] * 50, link=LINK)
    assert [type(answer) for answer in answers] == [Error]
    assert isinstance(answers[0], Error)
    assert answers[0].code is ErrorCode.UNKNOWN_LINK
    assert tell(a, STRANGER, Ping(1), link=LINK) == []
    world.run(1.0)
    assert len(tell(a, STRANGER, Ping(1), link=LINK)) == 1
    assert a.engine.statistics().packets_unknown == 52


def test_errors_and_farewells_of_strangers_are_never_answered() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    answers = tell(
        a, STRANGER,
        Error(ErrorCode.MALFORMED, "ping-pong"), Bye(ByeCode.CLOSED, ""), Fenced(99),
    )  # fmt: skip
    assert answers == []
    assert_unharmed(world, a, b)


def test_an_unknown_version_is_answered_and_counted_but_told_of_once() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    for _ in range(100):
        a.do(PacketsReceived([(STRANGER, [b"\x93\x02\xc4\x00\x01"])]))
    before = len(a.actions)
    world.run(0.01)
    sent = [action for action in a.actions[before:] if isinstance(action, SendPackets)]
    assert len(sent) == 1
    (error,) = decode([bytes(p) for p in sent[0].packets[0]], WireLimits()).frames
    assert isinstance(error, Error)
    assert error.code is ErrorCode.UNSUPPORTED_VERSION
    assert a.engine.statistics().defects == {"version": 3, "cut off": 1}
    (trace,) = a.traces("defect")
    assert trace.fields["kind"] == "version"


def test_who_was_cut_off_is_heard_again_when_its_time_is_over() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    rubbish = (STRANGER, [b"\xff" * 100])
    a.do(PacketsReceived([rubbish] * 2))
    assert isinstance(tell(a, STRANGER, Who(MESH, b.id))[0], Iam)  # not yet too many
    a.do(PacketsReceived([rubbish] * 10))
    world.run(0.001)
    assert a.ordered(ShutOut) == [ShutOut(STRANGER, 15.0)]
    assert tell(a, STRANGER, Who(MESH, b.id)) == []
    assert a.engine.statistics().packets_ignored == 10
    assert a.engine.statistics().defects == {"malformed": 3, "cut off": 1}
    world.run(15.0)
    assert isinstance(tell(a, STRANGER, Who(MESH, b.id))[0], Iam)
    assert_unharmed(world, a, b)


def test_too_many_parts_are_enough_at_once() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    a.do(PacketsReceived([(STRANGER, [b""] * 65)] * 2))
    world.run(0.001)
    assert a.ordered(ShutOut) == [ShutOut(STRANGER, 15.0)]
    assert a.engine.statistics().defects == {"oversized": 1, "cut off": 1}


def test_a_peer_that_sends_rubbish_loses_its_link_and_nobody_else_does() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    peer = a.engine._peers.get(b.id)
    assert peer is not None
    path = peer.link.path
    assert path is not None
    a.do(PacketsReceived([(path, [b"\xff" * 100])] * 5))
    world.run(0.001)
    statistics = a.engine.statistics()
    assert statistics.defects == {"malformed": 3, "cut off": 1}
    assert statistics.packets_ignored == 2
    assert a.engine._peers.on_path(path) is None
    assert_unharmed(world, a, c)
    world.run(60.0)
    assert_unharmed(world, a, b)


def test_who_broke_rules_is_remembered_for_no_more_paths_than_there_may_be() -> None:
    options = NodeOptions(strangers_max=8)
    world = World(options=options)
    a, _ = world.mesh("a", "b")
    for number in range(50):
        a.do(PacketsReceived([(b"\0%d" % number, [b"\xff"])] * (1 + number % 4)))
    world.run(0.001)
    assert len(a.engine._introductions.outcasts) == 8


def test_rubbish_is_counted_and_not_answered() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    before = len(a.actions)
    a.do(PacketsReceived([(STRANGER, [b"\xff" * 100]), (STRANGER, []), (STRANGER, [b""] * 99)]))
    world.run(0.001)
    assert not any(
        isinstance(action, SendPackets) and action.path == STRANGER
        for action in a.actions[before:]
    )
    assert sum(a.engine.statistics().defects.values()) == 4
    assert_unharmed(world, a, b)


def test_a_claim_to_be_a_linked_peer_does_not_disturb_its_link() -> None:
    """The claim of the same incarnation with another journal is a clone's: refused."""
    world = World()
    a, b = world.mesh("a", "b")
    answers = tell(a, STRANGER, hello(b.id, a.id), link=LINK)
    assert isinstance(answers[0], Error)
    assert answers[0].code is ErrorCode.DUPLICATE_IDENTITY
    record: Record = (head(Kind.DIRECT), "", b"forged")
    for _ in range(20):
        tell(a, STRANGER, Data(4, 1, (record,)), link=LINK)
    assert a.inbox == []
    assert_unharmed(world, a, b)


def test_a_path_that_spoke_for_one_node_does_not_speak_for_another() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    tell(a, STRANGER, hello(NodeId(b"s" * 16), a.id), link=LINK)
    assert tell(a, STRANGER, hello(NodeId(b"t" * 16), a.id), link=LINK) == []
    assert "identity" in a.engine.statistics().defects
    assert_unharmed(world, a, b)


def test_unanswered_claims_do_not_fill_the_table_for_good() -> None:
    world = World(NodeOptions(peers_max=10))
    a, b = world.mesh("a", "b")
    for number in range(200):
        node = NodeId(number.to_bytes(16, "big"))
        tell(a, number.to_bytes(5, "big"), hello(node, a.id), link=LINK)
        assert a.engine.statistics().peers <= 10
    c = world.host("c")
    world.introduce(a, c)
    world.run(70.0)
    assert {view.name for view in a.engine.peers()} == {"b", "c"}
    assert_unharmed(world, a, b)


def test_a_full_table_says_that_it_is() -> None:
    world = World(NodeOptions(peers_max=1))
    a, _ = world.mesh("a", "b")
    (bye,) = tell(a, STRANGER, hello(NodeId(b"s" * 16), a.id), link=LINK)
    assert bye == Bye(ByeCode.REFUSED, "no room for more peers")


def test_what_is_remembered_of_strangers_is_bounded() -> None:
    world = World(NodeOptions(strangers_max=50, defects_traced_max=50))
    a, _ = world.mesh("a", "b")
    for number in range(500):
        path = number.to_bytes(5, "big")
        a.do(PacketsReceived([(path, [b"\xff"]), (path, parts_of(Ping(1), LINK))]))
        a.do(PacketsReceived([(path, parts_of(Who(MESH, NodeId(b"s" * 16))))]))
    world.run(0.1)
    introductions = a.engine._introductions
    assert len(introductions._answered) <= 50
    assert len(introductions._gifted) <= 50
    assert len(a.engine._defects._traced) <= 50


def test_iam_nobody_asked_for_brings_no_candidates() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    hint = PeerHint(NodeId(b"h" * 16), "lure", ("tcp://127.0.0.1:9",))
    tell(a, STRANGER, Iam(MESH, b.id, "b", 1, (), (hint,)))
    tell(a, STRANGER, Iam(MESH, NodeId(b"s" * 16), "s", 1, (), (hint,)))
    assert a.engine.statistics().membership.table.candidates == 1


def test_news_of_unknown_paths_is_ignored() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    for path in (99, b"nobody"):
        a.do(PathDown(path, PathCause.CLOSED), PathFull(path), PathWritable(path))
    world.run(1.0)
    assert_unharmed(world, a, b)


def test_connections_that_come_and_go_make_nobody_ask_around_all_day() -> None:
    world = World(NodeOptions(doubts_per_second=4))
    a, b, c = world.host("a"), world.host("b"), world.host("c")
    for host in (b, c):
        host.do(CandidateFound("static", None, "a", (a.endpoint,)))  # so their paths are inbound
    world.run(3.0)
    asked = 0

    def on_sent(source: int, _target: int, packet: list[bytes]) -> None:
        nonlocal asked
        asked += source == a.index and isinstance(decode(packet, WireLimits()).frames[0], Who)

    world.network.on_sent = on_sent
    for _ in range(100):
        a.do(InboundClosed())
        world.run(0.1)
    assert 30 <= asked <= 44
    assert_unharmed(world, a, b)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stranger", "peer"]),
            st.lists(st.binary(max_size=40), max_size=3),
        ),
        max_size=10,
    )
)
def test_random_bytes_raise_nothing(packets: list[tuple[str, list[bytes]]]) -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    paths = {"stranger": STRANGER, "peer": next(iter(a.engine._peers.get(b.id).paths))}  # type: ignore[union-attr]
    a.do(PacketsReceived([(paths[who], parts) for who, parts in packets]))
    world.run(0.1)
    assert_unharmed(world, a, c)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_packets_corrupted_on_the_way_from_one_peer_harm_no_other(seed: int, changes: int) -> None:
    """Whatever b seems to say, c's messages arrive once and in order."""
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    b.subscribe(1, "t")
    world.random.seed(seed)

    def corrupt(_source: int, _target: int, packet: list[bytes], _random: Random) -> list[bytes]:
        head = bytearray(packet[0])
        for _ in range(changes):
            head[world.random.randrange(len(head))] ^= 1 << world.random.randrange(8)
        return [bytes(head), *packet[1:]]

    world.network._corrupt = corrupt
    weather = replace(world.network.calm, corruption=0.5)
    world.network.set_weather(b.index, a.index, weather)
    texts = [str(number) for number in range(50)]
    for text in texts:
        b.post(a, text)
        c.post(a, text)
        a.publish("t", text)
        world.run(0.02)
    world.run(1.0)
    from_c = [
        record[2]
        for action in a.ordered(DeliverInbox) if isinstance(action, DeliverInbox)
        for delivery in action.deliveries if delivery.source.node == c.id
        for record in delivery.records
    ]  # fmt: skip
    assert from_c == [text.encode() for text in texts]
    assert a.sees(c) is PeerState.ALIVE


def test_one_connection_with_many_ids_takes_one_place_among_the_peers() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    for number in range(50):
        tell(a, STRANGER, hello(NodeId(number.to_bytes(2, "big") * 8), a.id))
    assert len(a.engine._peers) == 2
    assert any(t.fields["kind"] == "identity" for t in a.traces("defect"))
    assert_unharmed(world, a, b)
