"""Identities and tokens: opaque bytes with a name, and how people see them."""

from typing import NewType, Protocol

NodeId = NewType("NodeId", bytes)
"""16 bytes that name a node for life."""

JournalId = NewType("JournalId", bytes)
"""16 random bytes, new with every journal; with every process where there is no storage."""

SessionId = NewType("SessionId", bytes)
"""16 random bytes both ends of a session agree on; sequence numbers live inside it."""

LinkId = NewType("LinkId", bytes)
"""8 random bytes, new with every HELLO exchange; every packet carries it."""

MeshTag = NewType("MeshTag", bytes)
"""8 bytes derived from the mesh name: who carries another tag is not of this mesh."""

Path = int | bytes
"""One way to one peer: an `int` is a connection we dialed, `bytes` one that dialed us.

The bytes are the routing id of the connection and, where it is encrypted, its public key of
`CONNECTION_KEY_BYTES` behind that.
"""

NODE_ID_BYTES = 16
TOKEN_BYTES = 16
LINK_ID_BYTES = 8
MESH_TAG_BYTES = 8
CONNECTION_KEY_BYTES = 32
"""Of the public key (X25519) by which the other end knows an encrypted connection."""

NO_LINK = LinkId(bytes(LINK_ID_BYTES))
"""The link id of packets sent outside any link (WHO, IAM, ERROR)."""


class Entropy(Protocol):
    """Where randomness comes from: the operating system, or a simulator's seed."""

    def token(self, size: int, /) -> bytes:
        """Return `size` unpredictable bytes."""
        ...

    def uniform(self, low: float, high: float, /) -> float:
        """Return a float in `[low, high]`."""
        ...


def short(identity: bytes) -> str:
    """Return the first 8 hex digits, enough for a person to tell two apart."""
    return identity[:4].hex()
