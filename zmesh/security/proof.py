"""What IAM, HELLO and WELCOME sign, so that nobody can speak for another.

The transcript names both ends, the link, and the connection as the signer sees it. Who relays a
handshake has a connection of its own on each side, so the two ends see different ones: a proof
holds on the connection it was made for, and nowhere else.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import pack

from zmesh.ids import NO_JOURNAL, NO_LINK, JournalId, LinkId, MeshTag, NodeId
from zmesh.security.node_key import NodeKey, is_signed, node_id_of

_DOMAIN = b"zmesh handshake v1\x00"


class Role(IntEnum):
    """Which frame a proof is for: one is never good for another."""

    IAM = 1
    HELLO = 2
    WELCOME = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one node says to another when they meet; its proof is a signature of it."""

    role: Role
    mesh: MeshTag  # as it is on the wire
    to: NodeId
    incarnation: int  # of who says it
    to_incarnation: int  # of who is told, 0 while unknown
    connection: bytes  # the public key of the connection it goes over
    link: LinkId = NO_LINK  # that it is about; none with IAM
    attempt: int = 0  # of the HELLO, also where WELCOME answers it
    journal: JournalId = NO_JOURNAL  # of who says it: tells two clones apart; none with IAM

    def prove(self, key: NodeKey) -> bytes:
        """Return the proof that the owner of this key says it; 64 bytes."""
        return key.sign(self.transcript(key.public))

    def holds(self, node: NodeId, public: bytes, proof: bytes) -> bool:
        """Return whether a node says it, by the public key that it says is its own."""
        return node_id_of(public) == node and is_signed(public, self.transcript(public), proof)

    def transcript(self, public: bytes) -> bytes:
        """Return the bytes that are signed; `docs/protocol.md` section 8.1 has their order."""
        # Every field has one length, so no two transcripts are the same bytes.
        numbers = pack(">BQQQ", self.role, self.incarnation, self.to_incarnation, self.attempt)
        names = (self.mesh, public, self.to, self.link, self.journal, self.connection)
        return b"".join((_DOMAIN, numbers, *names))
