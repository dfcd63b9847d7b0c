"""What a node says of itself in mDNS, and how it is read. Pure: no DNS here, only its words.

An instance of the service `_zmesh._tcp.local.` (RFC 6763) named by the node's id in hex; its SRV
record has the port, its host's A and AAAA records the addresses, its TXT record these entries:

- `txtvers=1`: the layout of the entries, always the first (RFC 6763 section 6.7);
- `v=1`: the version of the link protocol;
- `id=...`: the node's id in hex, once more;
- `mesh=...`: the mesh tag in hex; nodes with another one are not ours. It is made of the mesh key
  where there is one, so that who has no key can tell nothing from it;
- `name=...`: the node's name, for people. Left out where it is empty, or nobody's business;
- `role=edge`: of a node that has links with hubs alone. Left out by those, and what else is there
  counts as left out.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from zmesh.discovery.endpoints import Endpoint
from zmesh.errors import InvalidOption
from zmesh.ids import NODE_ID_BYTES, MeshTag, NodeId
from zmesh.wire.frames import VERSION

SERVICE = "_zmesh._tcp.local."
TXT_VERSION = "1"
ENTRY_BYTES_MAX = 255
"""A TXT entry's length is one byte (RFC 1035 section 3.3)."""

EDGE = "edge"
"""The role of nodes that have links with hubs alone."""

_NAME_BYTES_MAX = ENTRY_BYTES_MAX - len("name=")


class Unfit(Enum):
    """Why a record is no candidate."""

    MALFORMED = "malformed"
    OTHER_VERSION = "other version"
    OTHER_MESH = "other mesh"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one node announces.

    Raises:
        InvalidOption: where the name does not fit into a TXT entry, or the endpoints have several
            ports: an SRV record has one.
    """

    mesh: MeshTag
    node: NodeId
    name: str
    port: int
    addresses: tuple[str, ...]
    is_edge: bool = False

    @classmethod
    def of(
        cls,
        mesh: MeshTag,
        node: NodeId,
        name: str,
        endpoints: Iterable[str],
        *,
        is_edge: bool = False,
    ) -> "Announcement | None":
        """Return what to announce for a node that listens there; None where it does nowhere.

        Loopback is announced only where there is nothing else: to other machines it is a lie, and
        on this one every other address works as well.
        """
        if len(name.encode()) > _NAME_BYTES_MAX:
            raise InvalidOption("name", name, f"at most {_NAME_BYTES_MAX} bytes in UTF-8")
        parsed = [Endpoint.parse(endpoint) for endpoint in endpoints]
        parsed = [each for each in parsed if not each.address.is_loopback] or parsed
        if not parsed:
            return None
        ports = {each.port for each in parsed}
        if len(ports) > 1:
            raise InvalidOption("endpoints", sorted(map(str, parsed)), "one port for all of them")
        addresses = dict.fromkeys(each.host.partition("%")[0] for each in parsed)
        return cls(mesh, node, name, parsed[0].port, tuple(addresses), is_edge)

    @property
    def instance(self) -> str:
        """The full name of the instance."""
        return f"{self.node.hex()}.{SERVICE}"

    @property
    def server(self) -> str:
        """The host name its addresses are under: one a node, for nodes differ in addresses."""
        return f"{self.node.hex()}.local."

    @property
    def entries(self) -> dict[str, str]:
        """The entries of the TXT record, in order."""
        entries = {
            "txtvers": TXT_VERSION,
            "v": str(VERSION),
            "id": self.node.hex(),
            "mesh": self.mesh.hex(),
        }
        if self.name:
            entries["name"] = self.name
        if self.is_edge:
            entries["role"] = EDGE
        return entries


@dataclass(frozen=True, slots=True)
class Announced:
    """What somebody announces, read; the endpoints are as they came, unchecked."""

    node: NodeId
    name: str
    endpoints: tuple[str, ...]
    is_edge: bool = False


def node_of(instance: str) -> NodeId | None:
    """Return whose instance this is by its name; None where it is not named as ours are."""
    label = instance.removesuffix(f".{SERVICE}")
    if len(label) != 2 * NODE_ID_BYTES or label != label.lower():
        return None
    try:
        node = bytes.fromhex(label)
    except ValueError:
        return None
    return NodeId(node) if len(node) == NODE_ID_BYTES else None


def read(
    tags: Collection[MeshTag],
    node: NodeId,
    entries: Mapping[str, str | None],
    port: int | None,
    addresses: Iterable[str],
) -> Announced | Unfit:
    """Read a node's records.

    Args:
        tags: they have to carry one of these.
        node: whose they are by the instance's name.
        entries: of the TXT record; an empty value may read as None.
        port: of the SRV record.
        addresses: of the A and AAAA records, link-local ones with their interface.
    """
    if entries.get("txtvers") != TXT_VERSION or entries.get("v") != str(VERSION):
        return Unfit.OTHER_VERSION if entries.get("txtvers") else Unfit.MALFORMED
    if entries.get("id") != node.hex() or not port:
        return Unfit.MALFORMED
    if entries.get("mesh") not in {tag.hex() for tag in tags}:
        return Unfit.OTHER_MESH
    name = entries.get("name") or ""
    endpoints = tuple(
        f"tcp://[{at}]:{port}" if ":" in at else f"tcp://{at}:{port}" for at in addresses
    )
    is_edge = entries.get("role") == EDGE
    return Announced(node, name if name.isprintable() else "", endpoints, is_edge)
