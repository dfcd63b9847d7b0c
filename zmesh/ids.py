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

That is its routing id, and on a CURVE mesh behind it the public key of who dialed: a connection
that only claims the same routing id is another path.
"""

NODE_ID_BYTES = 16
TOKEN_BYTES = 16
LINK_ID_BYTES = 8
MESH_TAG_BYTES = 8
CONNECTION_KEY_BYTES = 32
"""Of the public key (X25519) by which the other end knows an encrypted connection."""

NO_LINK = LinkId(bytes(LINK_ID_BYTES))
"""The link id of packets sent outside any link (WHO, IAM, ERROR)."""

NO_JOURNAL = JournalId(bytes(TOKEN_BYTES))
"""What stands for a journal id where none is told (IAM)."""


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


def connection_of(path: Path, own: bytes) -> bytes:
    """Return the public key of the connection that a path is on a CURVE mesh.

    It is the key of who dialed; `own` is the one with which this node does.
    """
    return own if isinstance(path, int) else path[-CONNECTION_KEY_BYTES:]
