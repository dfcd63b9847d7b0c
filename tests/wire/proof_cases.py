"""What the vectors in `tests/vectors/proofs.json` are made from: transcripts and their proofs.

Written together with the packets: see `vector_cases`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from zmesh.ids import JournalId, LinkId, MeshTag, SessionId
from zmesh.reliable.proofs import evidence_of, hello_claim, iam_claim, welcome_claim
from zmesh.security.node_key import NodeKey
from zmesh.security.proof import Claim
from zmesh.wire.frames import Hello, Iam, LaneState, Welcome

LINK: Final = LinkId(bytes.fromhex("a1a2a3a4a5a6a7a8"))
MESH: Final = MeshTag(bytes.fromhex("4d4d4d4d4d4d4d4d"))
JOURNAL: Final = JournalId(bytes.fromhex("10" * 16))
BOBS_JOURNAL: Final = JournalId(bytes.fromhex("20" * 16))
FRESH: Final = SessionId(bytes.fromhex("f5" * 16))
ADA: Final = NodeKey.of(bytes.fromhex("ad" * 32))
BOB: Final = NodeKey.of(bytes.fromhex("b0" * 32))
CONNECTION: Final = bytes.fromhex("cc" * 32)
"""The public key with which ada dials bob."""


@dataclass(frozen=True, slots=True)
class Case:
    """What somebody says over that connection."""

    name: str
    key: NodeKey
    claim: Claim

    @property
    def proof(self) -> bytes:
        return self.claim.prove(self.key)


_THERE: Final = ("tcp://192.168.1.8:49152",)
_LANES: Final = (LaneState(4, 1, 0, (), 1024, 262144),)
_IAM: Final = Iam(MESH, BOB.id, "bob", 3, _THERE, (), BOB.public)
_IAM_CLAIM: Final = iam_claim(_IAM, ADA.id, CONNECTION)
_HELLO: Final = Hello(
    MESH, ADA.id, BOB.id, "ada", 2, JOURNAL, 1, None, FRESH, (), _LANES, (), ADA.public
)
_HELLO_CLAIM: Final = hello_claim(_HELLO, LINK, CONNECTION, 3)
_WELCOME: Final = Welcome(
    BOB.id, "bob", 3, BOBS_JOURNAL, 1, 0, FRESH, _THERE, _LANES, (), BOB.public
)
_WELCOME_CLAIM: Final = welcome_claim(_WELCOME, MESH, ADA.id, 2, LINK, CONNECTION)

IAM: Final = replace(_IAM, proof=_IAM_CLAIM.prove(BOB))
HELLO: Final = replace(_HELLO, proof=_HELLO_CLAIM.prove(ADA))
WELCOME: Final = replace(_WELCOME, proof=_WELCOME_CLAIM.prove(BOB))
CASES: Final = (
    Case("iam", BOB, _IAM_CLAIM),
    Case("hello", ADA, _HELLO_CLAIM),
    Case("welcome", BOB, _WELCOME_CLAIM),
)
EVIDENCE: Final = evidence_of(_HELLO_CLAIM, HELLO.proof)

PATH: Final = Path(__file__).parent.parent / "vectors" / "proofs.json"

ABOUT: Final = (
    "Proofs of the zmesh link protocol, version 1 (docs/protocol.md, section 8.1): the seed of "
    "the Ed25519 key (RFC 8032) of who says something, its public key and node id, the "
    "transcript, and its signature. packets.json has the packets that carry them. Bytes are "
    "hexadecimal."
)


def as_file() -> dict[str, object]:
    """What the code makes of the file."""
    return {
        "about": ABOUT,
        "cases": [
            {
                "name": case.name,
                "seed": case.key.seed.hex(),
                "key": case.key.public.hex(),
                "node": case.key.id.hex(),
                "role": int(case.claim.role),
                "incarnation": case.claim.incarnation,
                "to_incarnation": case.claim.to_incarnation,
                "attempt": case.claim.attempt,
                "mesh": case.claim.mesh.hex(),
                "to": case.claim.to.hex(),
                "link": case.claim.link.hex(),
                "journal": case.claim.journal.hex(),
                "connection": case.claim.connection.hex(),
                "transcript": case.claim.transcript(case.key.public).hex(),
                "proof": case.proof.hex(),
            }
            for case in CASES
        ],
    }
