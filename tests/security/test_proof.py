from dataclasses import replace

import pytest

from zmesh.ids import JournalId, LinkId, MeshTag
from zmesh.security.node_key import NodeKey
from zmesh.security.proof import Claim, Role

ADA, BOB = NodeKey.of(b"a" * 32), NodeKey.of(b"b" * 32)
SAID = Claim(
    role=Role.HELLO,
    mesh=MeshTag(b"mesh-tag"),
    to=BOB.id,
    incarnation=3,
    to_incarnation=4,
    connection=b"c" * 32,
    link=LinkId(b"link-id."),
    attempt=1,
    journal=JournalId(b"j" * 16),
)
PROOF = SAID.prove(ADA)


def test_a_proof_holds_for_what_was_said() -> None:
    assert SAID.holds(ADA.id, ADA.public, PROOF)


@pytest.mark.parametrize(
    "other",
    [
        replace(SAID, role=Role.WELCOME),
        replace(SAID, mesh=MeshTag(b"other...")),
        replace(SAID, to=ADA.id),
        replace(SAID, incarnation=4),
        replace(SAID, to_incarnation=5),
        replace(SAID, connection=b"d" * 32),
        replace(SAID, link=LinkId(b"another.")),
        replace(SAID, attempt=2),
        replace(SAID, journal=JournalId(b"k" * 16)),
    ],
)
def test_it_does_not_hold_for_anything_else(other: Claim) -> None:
    assert not other.holds(ADA.id, ADA.public, PROOF)


def test_nobody_proves_to_be_another() -> None:
    assert not SAID.holds(ADA.id, BOB.public, PROOF)
    assert not SAID.holds(BOB.id, BOB.public, PROOF)
    assert not SAID.holds(BOB.id, ADA.public, PROOF)
