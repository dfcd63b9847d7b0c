"""Who a node is: somebody new with each process, or whom its journal says."""

from zmesh.discovery.mesh_tag import mesh_tag
from zmesh.face.settings import Settings
from zmesh.ids import TOKEN_BYTES, Entropy, JournalId
from zmesh.reliable.handshake import LocalIdentity
from zmesh.security.node_key import SEED_BYTES, NodeKey
from zmesh.storage import Identity
from zmesh.wire.compression import AVAILABLE


def new_identity(entropy: Entropy) -> Identity:
    """Return the identity of a node that keeps none: somebody new with each process."""
    fresh = NodeKey.new(entropy)
    return Identity(fresh.id, fresh.seed, JournalId(entropy.token(TOKEN_BYTES)), 1)


def node_key(identity: Identity) -> NodeKey | None:
    """Return the node's own key; None with a journal from before there were node keys."""
    return NodeKey.of(identity.seed) if len(identity.seed) == SEED_BYTES else None


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
