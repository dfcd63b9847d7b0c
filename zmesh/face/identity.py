"""Who a node is: somebody new with each process, or whom its journal says."""

from zmesh.discovery.mesh_tag import mesh_tag
from zmesh.face.settings import Settings
from zmesh.ids import NODE_ID_BYTES, TOKEN_BYTES, Entropy, JournalId, NodeId
from zmesh.reliable.handshake import LocalIdentity
from zmesh.storage import Identity
from zmesh.wire.compression import AVAILABLE


def new_identity(entropy: Entropy) -> Identity:
    """Return the identity of a node that keeps none: somebody new with each process."""
    node = NodeId(entropy.token(NODE_ID_BYTES))
    return Identity(node, b"", JournalId(entropy.token(TOKEN_BYTES)), 1)


def local_identity(settings: Settings, identity: Identity) -> LocalIdentity:
    """Return who a node is to its peers."""
    return LocalIdentity(
        mesh_tag(settings.mesh),
        identity.node,
        settings.name,
        identity.incarnation,
        identity.journal,
        AVAILABLE,
    )
