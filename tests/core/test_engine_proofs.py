"""A mesh with keys: what another member can do in somebody else's name. Nothing."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.core.telling import assert_unharmed, parts_of, tell
from tests.engines import MESH, Host, World
from zmesh.actions import Audited, AuditKind, IdentityClash, PeerState, ShutOut
from zmesh.events import CandidateFound, PacketsReceived, PathUp
from zmesh.ids import (
    NO_LINK,
    JournalId,
    LinkId,
    NodeId,
    Path,
    SessionId,
    connection_of,
)
from zmesh.message import Outcome
from zmesh.options import LinkOptions, NodeOptions, WireLimits
from zmesh.reliable.link import Link
from zmesh.reliable.proofs import hello_claim, iam_claim, welcome_claim
from zmesh.security.node_key import NodeKey
from zmesh.wire.codec import decode
from zmesh.wire.frames import (
    Ack,
    Bye,
    ByeCode,
    ControlData,
    Error,
    ErrorCode,
    Fenced,
    Frame,
    Hello,
    Iam,
    PeerHint,
    Ping,
    Settle,
    Welcome,
    Who,
)

MALLORY = NodeKey.of(b"mallory!" * 4)
"""Another member: it has the mesh's key, and one of its own."""

KEYS = [bytes([number]) * 32 for number in range(1, 200)]
"""Public keys of connections it dials."""

LINK = LinkId(b"linklink")
LATER = 1 << 40


def inbound(number: int = 0) -> bytes:
    """A path on which Mallory dialed."""
    return b"\0\xff\0" + number.to_bytes(2, "big") + KEYS[number % len(KEYS)]


def hello(node: NodeId, to: Host, *, incarnation: int = 1, attempt: int = 1) -> Hello:
    return Hello(
        mesh=MESH, node=node, to=to.id, name="mallory", incarnation=incarnation,
        journal=JournalId(b"j" * 16), attempt=attempt, resume=None, fresh=SessionId(b"f" * 16),
        endpoints=(), lanes=(),
    )  # fmt: skip


def by(
    key: NodeKey, said: Hello, path: Path, link: LinkId = LINK, to_incarnation: int = 1
) -> Hello:
    """The HELLO with the proof of a key, as it is good on a path."""
    claim = hello_claim(said, link, connection_of(path, b""), to_incarnation)
    return replace(said, key=key.public, proof=claim.prove(key))


def public(host: Host) -> bytes:
    assert host.key is not None
    return host.key.public


def audited(host: Host, kind: AuditKind = AuditKind.NOT_PROVED) -> list[Audited]:
    return [each for each in host.actions if isinstance(each, Audited) and each.kind is kind]


def sent_by(world: World, of: type[Frame]) -> list[tuple[int, int, LinkId, Frame]]:
    """What hosts say from now on: from, to, link and frame."""
    said: list[tuple[int, int, LinkId, Frame]] = []

    def on_sent(source: int, target: int, parts: list[bytes]) -> None:
        packet = decode(parts, WireLimits())
        if isinstance(packet.frames[0], of):
            said.append((source, target, packet.link, packet.frames[0]))

    world.network.on_sent = on_sent
    return said


def link_of(host: Host, peer: Host) -> Link:
    found = host.engine._peers.get(peer.id)
    assert found is not None
    return found.link


def secured(*names: str, options: NodeOptions | None = None) -> tuple[World, list[Host]]:
    world = World(options, secured=True)
    return world, world.mesh(*names)


# Who is honest does not notice


def test_a_mesh_with_keys_is_a_mesh() -> None:
    world, (a, b, c) = secured("a", "b", "c")
    assert_unharmed(world, a, b)
    assert_unharmed(world, b, c)
    for host in (a, b, c):
        assert host.engine.statistics().defects == {}
        assert not host.ordered(Audited)
    assert {a.id, b.id, c.id} == {key.id for key in (a.key, b.key, c.key) if key is not None}


def test_who_comes_back_proves_itself_again() -> None:
    world, (a, b) = secured("a", "b")
    b.kill()
    world.run(5.0)
    b = world.host("b")
    world.introduce(a, b)
    world.run(3.0)
    assert_unharmed(world, a, b)
    assert not a.ordered(Audited)


def test_a_link_that_is_no_longer_known_is_begun_anew_on_either_path() -> None:
    """HELLO on a path that the callee dialed names no incarnation of it."""
    world = World(secured=True)
    a, b = world.host("a"), world.host("b")
    a.do(CandidateFound("mdns", b.id, "b", (b.endpoint,)))  # a dials, b does not
    world.run(3.0)
    for caller, callee in ((a, b), (b, a)):
        link = link_of(caller, callee)
        assert isinstance(link.path, int if caller is a else bytes)
        error = parts_of(Error(ErrorCode.UNKNOWN_LINK, ""), link._link_id)
        caller.do(PacketsReceived([(link.path, error)]))
        world.run(0.5)
        assert_unharmed(world, a, b)
    assert not a.ordered(Audited)
    assert not b.ordered(Audited)


def test_a_mesh_without_keys_makes_and_wants_no_proofs() -> None:
    world = World()
    said = sent_by(world, Iam)
    a, b = world.mesh("a", "b")
    assert said
    for _, _, _, frame in said:
        assert isinstance(frame, Iam)
        assert frame.key == frame.proof == b""
    assert a.engine.statistics().proofs_checked == b.engine.statistics().proofs_checked == 0


# HELLO


def false_hellos(a: Host, b: Host) -> dict[str, Callable[[Path], Hello]]:
    """What Mallory may say to `a` in the name of `b`."""
    said = hello(b.id, a)
    return {
        "without proof": lambda _: said,
        "by another key": lambda path: by(MALLORY, said, path),
        "with its key and the proof of another": lambda path: replace(
            by(MALLORY, said, path), key=public(b)
        ),
        "with rubbish": lambda _: replace(said, key=public(b), proof=b"p" * 64),
        "made for another connection": lambda _: by(key_of(b), said, inbound(100)),
        "made for another link": lambda path: by(key_of(b), said, path, LinkId(b"otherone")),
        "made for another life": lambda path: by(key_of(b), said, path, to_incarnation=2),
        "made for a path it was dialed on": lambda path: by(key_of(b), said, path, LINK, 0),
        "of a later life": lambda path: by(MALLORY, hello(b.id, a, incarnation=LATER), path),
        "of an earlier life": lambda path: by(MALLORY, hello(b.id, a, incarnation=0), path),
        "of a clone": lambda path: by(MALLORY, hello(b.id, a, attempt=LATER), path),
        "of the callee itself": lambda path: by(MALLORY, hello(a.id, a), path),
    }


def key_of(host: Host) -> NodeKey:
    assert host.key is not None
    return host.key


CASES = (
    "without proof", "by another key", "with its key and the proof of another", "with rubbish",
    "made for another connection", "made for another link", "made for another life",
    "made for a path it was dialed on", "of a later life", "of an earlier life", "of a clone",
    "of the callee itself",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("is_linked", [True, False])
def test_a_hello_that_is_not_proved_has_no_effect(case: str, is_linked: bool) -> None:
    world, (a, b) = secured("a", "b")
    absent = b
    if not is_linked:
        absent = world.host("absent")
        absent.kill()
    assert set(false_hellos(a, absent)) == set(CASES)
    peers, path = len(a.engine._peers), inbound()
    said = false_hellos(a, absent)[case](path)
    answers = tell(a, path, said, link=LINK)
    assert [type(answer) for answer in answers] == [Error]
    assert isinstance(answers[0], Error)
    assert answers[0].code is ErrorCode.NOT_PROVED
    assert len(a.engine._peers) == peers
    assert a.engine._peers.on_path(path) is None
    assert a.engine.statistics().defects == {"not proved": 1}
    [told] = audited(a)
    assert "HELLO" in told.detail
    assert not a.ordered(IdentityClash)
    assert_unharmed(world, a, b)


def test_a_culprit_is_told_of_once_and_not_listened_to_for_a_while() -> None:
    world, (a, b) = secured("a", "b")
    before = a.engine.statistics().proofs_checked
    for _ in range(50):
        tell(a, inbound(), hello(b.id, a), link=LINK)
    statistics = a.engine.statistics()
    assert statistics.proofs_checked - before == 1
    assert (
        8 <= statistics.proofs_unseen <= 12
    )  # as many are allowed as of proofs; then it is cut off
    assert statistics.packets_ignored == 49 - statistics.proofs_unseen
    assert statistics.paths_cut_off == 1
    assert a.ordered(ShutOut)
    assert len(audited(a)) == 1
    world.run(LinkOptions().refusal)
    tell(a, inbound(), hello(b.id, a), link=LINK)
    assert a.engine.statistics().proofs_checked - before == 2
    assert len(audited(a)) == 1
    assert_unharmed(world, a, b)


def test_a_hello_that_was_overheard_is_good_nowhere_else() -> None:
    world = World(secured=True)
    said = sent_by(world, Hello)
    a, b = world.mesh("a", "b")
    c = world.host("c")
    source, target, link, frame = said[0]
    caller, callee = ((a, b), (b, a))[source]
    assert target == callee.index
    for host in (caller, callee, c):
        [error] = tell(host, inbound(), frame, link=link)
        assert isinstance(error, Error)
        assert len(host.engine._peers) == (host is not c)
    assert_unharmed(world, a, b)


def test_a_hello_to_an_earlier_life_is_void_in_the_next_one() -> None:
    world = World(secured=True)
    said = sent_by(world, Hello)
    a, b = world.host("a"), world.host("b")
    a.do(CandidateFound("static", None, "b", (b.endpoint,)))
    world.run(2.0)
    _, _, link, frame = said[0]
    b.kill()
    b = world.host("b")
    # The same connection key: only the incarnation tells the two apart.
    assert tell(b, inbound()[:5] + a.connection, frame, link=link) == [
        Error(ErrorCode.NOT_PROVED, "the proof is of another connection")
    ]
    assert len(b.engine._peers) == 0


def test_whoever_speaks_for_itself_is_a_peer_and_harms_its_own_link() -> None:
    world, (a, b) = secured("a", "b")
    path = inbound()
    [welcome] = tell(a, path, by(MALLORY, hello(MALLORY.id, a), path), link=LINK)
    assert isinstance(welcome, Welcome)
    claim = welcome_claim(welcome, MESH, MALLORY.id, 1, LINK, KEYS[0])
    assert claim.holds(a.id, welcome.key, welcome.proof)
    rubbish: list[Frame] = [Ack(LATER, 0, (), ()), Who(MESH, b.id)]
    tell(a, path, *rubbish, link=LINK)
    assert_unharmed(world, a, b)


# IAM


def iam(host: Host, *, node: NodeId | None = None, incarnation: int = 1) -> Iam:
    return Iam(MESH, node or host.id, "b", incarnation, (host.endpoint,), ())


def dialed(a: Host, world: World, *candidates: CandidateFound) -> list[int]:
    """Let a host hear of somebody, and have its dials answered by nobody but the test."""
    silent: list[int] = []

    def dial(_port: object, path: int, *_: object) -> None:
        silent.append(path)

    world.network.dial = dial  # type: ignore[method-assign,assignment]
    a.do(*candidates)
    world.run(0.45)  # `higher_id_dials_after`, and a stagger
    a.do(*(PathUp(path) for path in silent))
    world.run(0.01)
    return silent


@pytest.mark.parametrize("proof", ["none", "of another key", "for another connection", "rubbish"])
def test_an_iam_that_is_not_proved_is_hung_up_on_and_other_addresses_are_tried(proof: str) -> None:
    world = World(secured=True)
    a, b = world.host("a"), world.host("b")
    spoofed = "tcp://127.0.0.1:9999"
    paths = dialed(a, world, CandidateFound("mdns", b.id, "b", (spoofed, b.endpoint)))
    assert len(paths) == 2
    said = iam(b)
    if proof == "of another key":
        made = iam_claim(said, a.id, a.connection).prove(MALLORY)
        said = replace(said, key=MALLORY.public, proof=made)
    elif proof == "for another connection":
        made = iam_claim(said, a.id, KEYS[0]).prove(key_of(b))
        said = replace(said, key=public(b), proof=made)
    elif proof == "rubbish":
        said = replace(said, key=public(b), proof=b"p" * 64)
    assert tell(a, paths[0], said) == []
    assert a.engine.statistics().membership.unproved == 1
    assert len(a.engine._peers) == 0
    [told] = audited(a)
    assert told.endpoint == spoofed
    made = iam_claim(iam(b), a.id, a.connection).prove(key_of(b))
    [call] = tell(a, paths[1], replace(iam(b), key=public(b), proof=made))
    assert isinstance(call, Hello)
    assert call.to == b.id


class Impostor:
    """Somebody who listens, and answers WHO in the name of another."""

    index = -7

    def __init__(self, world: World, endpoint: str, iam_of: Callable[[bytes], Iam]) -> None:
        self._world = world
        self._iam_of = iam_of
        self.heard: list[Frame] = []
        world.network.listen(self, endpoint)

    def deliver(self, _: object) -> None:
        pass

    def receive(self, path: Path, packet: list[bytes]) -> None:
        self._world.network.consumed(self, path)
        frame = decode(packet, WireLimits()).frames[0]
        self.heard.append(frame)
        if isinstance(frame, Who):
            answer = self._iam_of(connection_of(path, b""))
            self._world.network.send(self, path, parts_of(answer))


def test_an_impostor_at_a_spoofed_address_does_not_keep_two_apart() -> None:
    world = World(secured=True)
    a, b = world.host("a"), world.host("b")
    spoofed = "tcp://127.0.0.1:9999"

    def answer(connection: bytes) -> Iam:
        said = iam(b)
        made = iam_claim(said, a.id, connection).prove(MALLORY)
        return replace(said, key=MALLORY.public, proof=made)

    impostor = Impostor(world, spoofed, answer)
    a.do(CandidateFound("mdns", b.id, "b", (spoofed, b.endpoint)))  # b has not heard of a
    took = world.run_until(lambda: a.sees(b) is PeerState.ALIVE)
    assert took < 1.0  # `higher_id_dials_after`, and no time-out
    assert {type(frame) for frame in impostor.heard} == {Who}


def test_another_member_at_a_spoofed_address_does_not_keep_two_apart() -> None:
    world = World(secured=True)
    a, b, c = world.host("a"), world.host("b"), world.host("c")
    a.do(CandidateFound("mdns", b.id, "b", (c.endpoint, b.endpoint)))
    assert world.run_until(lambda: a.sees(b) is PeerState.ALIVE) < 1.0


def test_a_lie_about_one_address_does_not_make_the_next_round_late() -> None:
    """The honest one restarts meanwhile: its address refuses, and is tried again soon."""
    world = World(secured=True)
    a, b, c = world.host("a"), world.host("b"), world.host("c")
    b.kill()
    a.do(CandidateFound("mdns", b.id, "b", (c.endpoint, b.endpoint)))
    world.run(1.0)
    assert a.engine.statistics().membership.wrong_node > 0
    b = world.host("b")
    assert world.run_until(lambda: a.sees(b) is PeerState.ALIVE) < 3.0


def test_nobody_is_made_to_believe_that_it_has_a_clone() -> None:
    world = World(secured=True)
    a, b = world.host("a"), world.host("b")
    endpoint = "tcp://127.0.0.1:9999"

    def answer(connection: bytes) -> Iam:
        said = iam(b, node=a.id, incarnation=LATER)
        made = iam_claim(said, a.id, connection).prove(MALLORY)
        return replace(said, key=public(a), proof=made)

    Impostor(world, endpoint, answer)
    a.do(CandidateFound("static", None, "x", (endpoint,)))
    world.run(5.0)
    assert not a.ordered(IdentityClash)
    assert a.engine.statistics().membership.itself == 0
    assert audited(a)


def test_dialing_ourselves_ends_quietly_with_keys_too() -> None:
    world = World(secured=True)
    a = world.host("a")
    world.network.listen(a, "tcp://127.0.0.1:9999")  # as a forwarded port would lead back here
    a.do(CandidateFound("static", None, "me", ("tcp://127.0.0.1:9999",)))
    world.run(1.0)
    assert a.engine.statistics().membership.itself == 1
    assert not a.ordered(IdentityClash)
    assert not audited(a)


def test_an_iam_on_the_path_of_another_brings_nothing() -> None:
    """Neither hints, nor news of who listens where: a peer's own connection is another."""
    world, (a, b) = secured("a", "b")
    hint = PeerHint(NodeId(b"h" * 16), "lure", ("tcp://127.0.0.1:9",))
    path = inbound()
    tell(a, path, by(MALLORY, hello(MALLORY.id, a), path), link=LINK)
    for said in (iam(b), replace(iam(b), node=MALLORY.id)):
        tell(a, path, replace(said, known=(hint,)))
    assert a.engine.statistics().membership.table.candidates == 1
    assert link_of(a, b).is_open
    assert_unharmed(world, a, b)


def test_the_name_of_who_was_here_is_not_for_others_to_tell() -> None:
    world, (a, b, c) = secured("a", "b", "c")
    c.kill()
    world.run(3.0)
    link = link_of(a, b)
    assert link.path is not None
    said = Iam(MESH, b.id, "b", 1, (b.endpoint,), (PeerHint(c.id, "printer", (c.endpoint,)),))
    connection = connection_of(link.path, a.connection)
    made = iam_claim(said, a.id, connection).prove(key_of(b))
    a.do(PacketsReceived([(link.path, parts_of(replace(said, key=public(b), proof=made)))]))
    world.run(0.01)
    assert a.engine._peers.hints.named("printer") == []


# WHO


def signatures(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is signed from now on."""
    signed: list[bytes] = []
    real = NodeKey.sign

    def sign(self: NodeKey, data: bytes) -> bytes:
        signed.append(data)
        return real(self, data)

    monkeypatch.setattr(NodeKey, "sign", sign)
    return signed


def test_asking_again_and_again_costs_one_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (a, _) = secured("a", "b")
    signed = signatures(monkeypatch)
    answers = tell(a, inbound(), *[Who(MESH, MALLORY.id)] * 100)
    assert len(answers) == 100
    assert len(signed) == 1
    for answer in answers:
        assert isinstance(answer, Iam)
        assert iam_claim(answer, MALLORY.id, KEYS[0]).holds(a.id, answer.key, answer.proof)


def test_asking_in_many_names_is_not_answered_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    options = NodeOptions(path_proofs_burst=5, path_proofs_per_second=1.0)
    world, (a, b) = secured("a", "b", options=options)
    signed = signatures(monkeypatch)
    names = [Who(MESH, NodeId(number.to_bytes(16, "big"))) for number in range(100)]
    assert len(tell(a, inbound(), *names)) == 5
    assert len(signed) == 5
    [told] = audited(a, AuditKind.FLOODED)
    assert "WHO" in told.detail
    world.run(2.0)
    assert 1 <= len(tell(a, inbound(), *names)) <= 2
    assert_unharmed(world, a, b)


# WELCOME, and other answers to HELLO


def called(world: World, a: Host, b: Host) -> tuple[int, Hello, LinkId]:
    """Let `a` say HELLO to `b` on a path of the test's own."""
    [path] = dialed(a, world, CandidateFound("mdns", b.id, "b", (b.endpoint,)))
    made = iam_claim(iam(b), a.id, a.connection).prove(key_of(b))
    [call] = tell(a, path, replace(iam(b), key=public(b), proof=made))
    assert isinstance(call, Hello)
    return path, call, link_of(a, b)._link_id


def welcome(b: Host, to: Hello) -> Welcome:
    return Welcome(b.id, "b", 1, JournalId(b"b" * 16), to.attempt, 0, to.fresh, (b.endpoint,), ())


def test_a_welcome_that_is_not_proved_opens_nothing_and_is_no_violation() -> None:
    world = World(secured=True)
    a, b = world.host("a"), world.host("b")
    path, call, link_id = called(world, a, b)
    said = welcome(b, call)
    claim = welcome_claim(said, MESH, a.id, 1, link_id, a.connection)
    false = replace(said, key=public(b), proof=claim.prove(MALLORY))
    link = link_of(a, b)
    tell(a, path, false, link=link_id)
    assert not link.is_open
    assert link.session is None
    assert list(link._conduct._violations) == []
    assert a.engine.statistics().defects["not proved"] == 1
    assert len(audited(a)) == 1
    assert a.sees(b) is None


@pytest.mark.parametrize(
    "other",
    [
        {"caller": MALLORY.id}, {"incarnation": 2}, {"link": LinkId(b"another!")},
        {"connection": KEYS[0]},
    ],
)  # fmt: skip
def test_a_welcome_is_for_one_caller_life_link_and_connection(other: dict[str, object]) -> None:
    world = World(secured=True)
    a, b = world.host("a"), world.host("b")
    path, call, link_id = called(world, a, b)
    said = welcome(b, call)
    true = {
        "welcome": said, "mesh": MESH, "caller": a.id, "incarnation": 1, "link": link_id,
        "connection": a.connection,
    }  # fmt: skip
    claim = welcome_claim(**{**true, **other})  # type: ignore[arg-type]
    tell(a, path, replace(said, key=public(b), proof=claim.prove(key_of(b))), link=link_id)
    assert not link_of(a, b).is_open
    assert len(audited(a)) == 1


def test_a_welcome_that_is_proved_opens_the_link() -> None:
    world = World(secured=True)
    a, b = world.host("a"), world.host("b")
    path, call, link_id = called(world, a, b)
    said = welcome(b, call)
    claim = welcome_claim(said, MESH, a.id, 1, link_id, a.connection)
    said = replace(said, key=public(b), proof=claim.prove(key_of(b)))
    tell(a, path, said, link=link_id)
    assert link_of(a, b).is_open


REFUSALS: list[Frame] = [
    Fenced(LATER), Error(ErrorCode.DUPLICATE_IDENTITY, "you are two"),
]  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda frame: type(frame).__name__)
def test_word_of_a_clone_without_evidence_ends_that_link_alone(refusal: Frame) -> None:
    world, (a, b, c) = secured("a", "b", "c")
    link = link_of(a, c)
    assert link.path is not None
    a.do(PacketsReceived([(link.path, parts_of(refusal, link._link_id))]))
    world.run(0.001)
    assert not a.ordered(IdentityClash)
    assert_unharmed(world, a, b)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda frame: type(frame).__name__)
def test_word_of_a_clone_in_answer_to_hello_needs_evidence(refusal: Frame) -> None:
    world = World(secured=True)
    a, b = world.host("a"), world.host("b")
    path, _, link_id = called(world, a, b)
    tell(a, path, refusal, link=link_id)
    assert not a.ordered(IdentityClash)
    assert len(audited(a)) == 1
    assert a.engine.statistics().defects == {"not proved": 1}


def test_an_older_life_that_calls_is_shown_what_the_newer_one_said() -> None:
    world = World(secured=True)
    old = world.host("twin")
    new = world.host("twin")
    c = world.host("c")
    c.do(CandidateFound("static", None, "new", (new.endpoint,)))
    world.run(2.0)
    assert c.sees(new) is PeerState.ALIVE
    old.do(CandidateFound("mdns", c.id, "c", (c.endpoint,)))
    world.run(2.0)
    clashes = old.ordered(IdentityClash)
    assert clashes
    assert isinstance(clashes[0], IdentityClash)
    assert clashes[0].fenced
    assert not new.ordered(IdentityClash)
    assert c.sees(new) is PeerState.ALIVE


def test_a_clone_is_shown_what_the_other_one_said() -> None:
    world = World(secured=True)
    one, c = world.host("twin"), world.host("c")
    world.introduce(one, c)
    world.run(2.0)
    world._incarnations["twin"] = 0
    clone = world.host("twin", known_as="clone of the twin")
    assert clone.id == one.id
    clone.do(CandidateFound("mdns", c.id, "c", (c.endpoint,)))
    world.run(2.0)
    clashes = clone.ordered(IdentityClash)
    assert clashes
    assert isinstance(clashes[0], IdentityClash)
    assert not clashes[0].fenced
    assert c.sees(one) is PeerState.ALIVE


def test_what_we_said_ourselves_is_no_evidence_of_a_clone() -> None:
    """A peer has plenty of that."""
    world, (a, b) = secured("a", "b")
    link, mirror = link_of(a, b), link_of(b, a)
    assert link.path is not None
    for frame in (
        replace(mirror._handshake.fenced(), incarnation=LATER), mirror._handshake.duplicate(),
    ):  # fmt: skip
        assert frame.evidence is not None
        path, link_id = link.path, link._link_id
        a.do(PacketsReceived([(path, parts_of(frame, link_id))]))
        world.run(3.0)
    assert not a.ordered(IdentityClash)


# Beside a link


def test_links_of_others_cannot_be_spoken_on() -> None:
    world, (a, b) = secured("a", "b")
    link = link_of(a, b)
    everything = Settle(4, ((Outcome.REJECTED, 1, 1000),))
    frames: list[Frame] = [
        Ack(LATER, 0, ((4, 1000, ()),), ((4, LATER, LATER),)), ControlData(1, (everything,)),
        Bye(ByeCode.CLOSED, ""), Fenced(LATER), Error(ErrorCode.UNKNOWN_LINK, ""),
        Error(ErrorCode.WRONG_MESH, ""), Error(ErrorCode.DUPLICATE_IDENTITY, ""), Ping(1),
    ]  # fmt: skip
    before = link._link_id
    tell(a, inbound(), *frames, link=before)
    # The same routing id, from a connection with another key.
    for path in link_paths(a, b):
        tell(a, path[:5] + KEYS[0], *frames, link=before)
    for path in (inbound(1),):  # as a member of its own, too
        own = LinkId(b"mallorys")
        tell(a, path, by(MALLORY, hello(MALLORY.id, a), path, own), link=own)
        tell(a, path, *frames, link=before)
    assert link._link_id == before
    assert link.is_open
    assert list(link._conduct._violations) == []
    assert not a.ordered(IdentityClash)
    assert_unharmed(world, a, b)


def link_paths(a: Host, b: Host) -> list[bytes]:
    peer = a.engine._peers.get(b.id)
    assert peer is not None
    return [path for path in peer.paths if isinstance(path, bytes)] or [b"\0\0\0\0\x01" + KEYS[1]]


# Bounds


def test_a_flood_of_hellos_on_one_connection_is_looked_at_slowly() -> None:
    options = NodeOptions(path_proofs_burst=5, path_proofs_per_second=1.0)
    world, (a, b) = secured("a", "b", options=options)
    path = inbound()
    before = a.engine.statistics().proofs_checked
    said = [by(MALLORY, hello(MALLORY.id, a, attempt=number), path) for number in range(1, 101)]
    tell(a, path, *said, link=LINK)
    statistics = a.engine.statistics()
    assert statistics.proofs_checked - before == 5
    assert statistics.proofs_unseen == 6  # and not more of one that says so many in vain
    assert statistics.packets_ignored == 89
    told, cut_off = audited(a, AuditKind.FLOODED)
    assert "HELLO" in told.detail
    assert "ended" in cut_off.detail
    assert_unharmed(world, a, b)


def test_a_hello_said_again_costs_nothing() -> None:
    _, (a, _) = secured("a", "b")
    path = inbound()
    before = a.engine.statistics().proofs_checked
    said = by(MALLORY, hello(MALLORY.id, a), path)
    assert len(tell(a, path, *[said] * 50, link=LINK)) == 50
    assert a.engine.statistics().proofs_checked - before == 1


def test_a_flood_of_connections_uses_up_its_own_share_and_not_that_of_peers() -> None:
    options = NodeOptions(proofs_burst=20, proofs_per_second=5.0)
    world, (a, b) = secured("a", "b", options=options)
    before = a.engine.statistics()
    for number in range(100):
        tell(a, inbound(number), hello(NodeId(number.to_bytes(16, "big")), a), link=LINK)
    after = a.engine.statistics()
    assert 15 <= after.proofs_checked - before.proofs_checked <= 30  # 5 a second meanwhile
    assert after.proofs_unseen > 60
    assert audited(a, AuditKind.FLOODED)
    # A peer, whose connections proved themselves before, links anew at once.
    link = link_of(b, a)
    assert link.path is not None
    b.do(
        PacketsReceived([(link.path, parts_of(Error(ErrorCode.UNKNOWN_LINK, ""), link._link_id))])
    )
    world.run(0.1)
    assert_unharmed(world, a, b)
    # And whom a dials is looked at whatever strangers do.
    c = world.host("c")
    a.do(CandidateFound("static", None, "c", (c.endpoint,)))
    for number in range(100, 150):
        tell(a, inbound(number), hello(c.id, a), link=LINK)
    world.run_until(lambda: a.sees(c) is PeerState.ALIVE, 2.0)


def test_what_is_remembered_of_proofs_is_bounded() -> None:
    world, (a, b) = secured("a", "b", options=NodeOptions(strangers_max=20))
    for number in range(150):
        path = inbound(number)
        tell(a, path, Who(MESH, MALLORY.id), by(MALLORY, hello(MALLORY.id, a), path))
    proofs = a.engine._introductions.proofs
    assert len(proofs._paths) <= 20
    assert len(proofs._made) <= 20
    assert len(proofs._held) <= 40
    assert a.engine.statistics().strangers <= 20
    assert_unharmed(world, a, b)


def test_a_table_full_of_members_that_are_gone_has_room_for_newcomers() -> None:
    """The newest go: a flood of members that come and go pushes out its own."""
    options = NodeOptions(peers_max=3)
    world, (a, b, honest) = secured("a", "b", "honest", options=options)
    world.network.kill(honest, dark=True)  # nobody is told: its session lingers
    honest.alive = False
    lost = []
    for name in ("m1", "m2"):
        mallory = world.host(name)
        world.introduce(a, mallory)
        world.run(1.0)
        world.network.kill(mallory, dark=True)
        mallory.alive = False
        lost.append(mallory)
        world.run(30.0)
    assert a.sees(honest) is None
    assert a.engine._peers.get(honest.id) is not None
    assert a.engine.statistics().peers_displaced >= 1
    assert_unharmed(world, a, b)


def test_paths_of_a_connection_key_are_told_apart() -> None:
    assert connection_of(7, KEYS[0]) == KEYS[0]
    assert connection_of(b"\0abcd" + KEYS[1], KEYS[0]) == KEYS[1]
    assert bytes(8) == NO_LINK
