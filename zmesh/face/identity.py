"""Who a node is: somebody new with each process, or whom its journal says."""

from typing import NamedTuple

from zmesh.discovery.mesh_tag import mesh_tag
from zmesh.face.settings import Settings
from zmesh.face.storing import Kept
from zmesh.ids import TOKEN_BYTES, Entropy, JournalId
from zmesh.reliable.handshake import LocalIdentity
from zmesh.security.mesh_key import CurvePair
from zmesh.security.node_key import SEED_BYTES, NodeKey
from zmesh.security_errors import InvalidKey, NodeKeyMissing
from zmesh.storage import Identity
from zmesh.wire.compression import AVAILABLE


class Whoami(NamedTuple):
    """A node's own keys and what it tells of itself."""

    local: LocalIdentity
    key: NodeKey | None  # None with a journal from before there were node keys
    connection: CurvePair  # for what it dials; new with each process


def who_am_i(settings: Settings, kept: Kept, entropy: Entropy) -> Whoami:
    """Return who a node is.

    Raises:
        NodeKeyMissing: its journal is from before node keys, and the mesh has a key.
        InvalidKey: the key in its journal is not that of the node in there.
    """
    if kept.opened is None:
        fresh = NodeKey.new(entropy)
        identity = Identity(fresh.id, fresh.seed, JournalId(entropy.token(TOKEN_BYTES)), 1)
        key: NodeKey | None = fresh
    else:
        identity = kept.opened.identity
        key = _kept_key(settings, identity)
    connection = CurvePair.new(entropy)
    local = LocalIdentity(
        mesh_tag(settings.mesh),
        identity.node,
        settings.name,
        identity.incarnation,
        identity.journal,
        AVAILABLE,
        key,
        connection.public if settings.keys else b"",
        settings.is_edge,
    )
    return Whoami(local, key, connection)


def _kept_key(settings: Settings, identity: Identity) -> NodeKey | None:
    path = "" if settings.storage is None else str(settings.storage.path)
    if not identity.seed:
        if settings.keys:
            raise NodeKeyMissing(path)
        return None
    if len(identity.seed) != SEED_BYTES or (key := NodeKey.of(identity.seed)).id != identity.node:
        raise InvalidKey(f"the node key in {path}", "it is not that of the node of this journal")
    return key
