"""What HELLO and WELCOME sign, and what makes a node believe that it has a clone."""

from dataclasses import replace

import pytest

from tests.discovery.entropy import SeededEntropy
from tests.reliable.pair import MESH
from zmesh.errors import ProtocolError
from zmesh.ids import JournalId, LinkId
from zmesh.reliable.handshake import Handshake, LocalIdentity, NotProved
from zmesh.reliable.proofs import heard_hello
from zmesh.security.node_key import NodeKey
from zmesh.wire.frames import Error, ErrorCode, Fenced, Hello, Welcome

A, B = NodeKey.of(b"a" * 32), NodeKey.of(b"b" * 32)
DIALED, LINK = 1, LinkId(b"linklink")
INBOUND = b"\0\0\0\0\1" + b"A" * 32
"""The path on which `a` dialed, as `b` sees it."""


def local(key: NodeKey, incarnation: int = 1, life: bytes = b"1") -> LocalIdentity:
    name = "a" if key is A else "b"
    connection = name.upper().encode() * 32
    journal = JournalId(life * 16)
    return LocalIdentity(MESH, key.id, name, incarnation, journal, (), key, connection)


def sides(
    a: LocalIdentity | None = None, b: LocalIdentity | None = None
) -> tuple[Handshake, Handshake]:
    one, other = a or local(A), b or local(B)
    caller = Handshake(one, B.id, SeededEntropy(1))
    caller.told = other.incarnation
    return caller, Handshake(other, A.id, SeededEntropy(2))


def said_hello(a: Handshake) -> Hello:
    a.call()
    return a.hello((), (), DIALED, LINK)


def exchange(a: Handshake, b: Handshake) -> Welcome:
    said = said_hello(a)
    b.accept(said, INBOUND, LINK)
    return b.welcome(said.attempt, (), (), INBOUND, LINK)


def test_hello_is_signed_for_the_connection_as_both_see_it() -> None:
    a, _ = sides()
    said = said_hello(a)
    claim = heard_hello(said, LINK, INBOUND, b"B" * 32, 1)
    assert said.key == A.public
    assert claim.holds(A.id, said.key, said.proof)
    assert not heard_hello(said, LINK, INBOUND, b"B" * 32, 2).holds(A.id, said.key, said.proof)
    assert not heard_hello(said, LINK, DIALED, b"A" * 32, 1).holds(A.id, said.key, said.proof)


def test_hello_to_who_dialed_names_no_incarnation() -> None:
    _, b = sides()
    b.call()
    said = b.hello((), (), INBOUND, LINK)
    assert heard_hello(said, LINK, DIALED, b"A" * 32, 7).holds(B.id, said.key, said.proof)


def test_nothing_is_signed_where_no_proofs_are_wanted() -> None:
    plain = replace(local(A), connection=b"")
    said = said_hello(Handshake(plain, B.id, SeededEntropy(1)))
    assert said.key == said.proof == b""


def test_welcome_is_taken_with_its_proof_alone() -> None:
    a, b = sides()
    welcome = exchange(a, b)
    for false in (
        replace(welcome, proof=b""), replace(welcome, key=A.public),
        replace(welcome, incarnation=2), replace(welcome, journal=JournalId(b"x" * 16)),
    ):  # fmt: skip
        with pytest.raises(NotProved):
            a.on_welcome(false, DIALED, LINK)
        assert a.session is None
        assert a.incarnation == 0
    with pytest.raises(NotProved):
        a.on_welcome(welcome, DIALED, LinkId(b"another."))
    with pytest.raises(NotProved):
        a.on_welcome(welcome, INBOUND[:5] + b"X" * 32, LINK)
    assert a.on_welcome(welcome, DIALED, LINK) is not None
    assert a.session == b.session


def evidence_of_new_life(incarnation: int, life: bytes) -> Handshake:
    """What `b` knows of a life of `a`."""
    a, b = sides(a=local(A, incarnation, life))
    exchange(a, b)
    return b


def test_a_newer_life_fences_with_what_it_signed() -> None:
    b = evidence_of_new_life(5, b"5")
    old, _ = sides(a=local(A, 4))
    old.check_fenced(b.fenced())
    with pytest.raises(NotProved):
        old.check_fenced(Fenced(5))
    same, _ = sides(a=local(A, 5, b"5"))
    with pytest.raises(ProtocolError, match="not newer") as caught:
        same.check_fenced(b.fenced())
    assert not isinstance(caught.value, NotProved)
    with pytest.raises(NotProved, match="not newer"):
        same.check_fenced(replace(b.fenced(), incarnation=6))


def test_a_clone_is_told_with_what_the_other_signed() -> None:
    b = evidence_of_new_life(5, b"5")
    clone, _ = sides(a=local(A, 5, b"6"))
    clone.check_duplicate(b.duplicate())
    for this in (local(A, 5, b"5"), local(A, 6, b"7")):  # that very life, and a newer one
        handshake, _ = sides(a=this)
        with pytest.raises(NotProved, match="this very node"):
            handshake.check_duplicate(b.duplicate())
    with pytest.raises(NotProved, match="without evidence"):
        clone.check_duplicate(Error(ErrorCode.DUPLICATE_IDENTITY, ""))


def test_evidence_told_by_somebody_else_is_none() -> None:
    """The claim names who was told: `c` cannot pass on what was said to `b`."""
    b = evidence_of_new_life(5, b"5")
    c = NodeKey.of(b"c" * 32)
    old = Handshake(local(A, 4), c.id, SeededEntropy(1))
    with pytest.raises(NotProved, match="without evidence"):
        old.check_fenced(b.fenced())


def test_without_proofs_word_of_a_clone_is_believed() -> None:
    plain = replace(local(A), connection=b"")
    handshake = Handshake(plain, B.id, SeededEntropy(1))
    handshake.check_fenced(Fenced(2))
    handshake.check_duplicate(Error(ErrorCode.DUPLICATE_IDENTITY, ""))
