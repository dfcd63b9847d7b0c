"""Endpoints, `tcp://host:port`: read strictly, written one way, and put in the order to try them.

What strangers announce must be addresses and never names: a record must not make us ask a name
server. Names are for static peers alone, and `static` resolves them before they come here.
"""

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

SCHEME = "tcp://"
_SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # an interface name (IFNAMSIZ is 16) or its index
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_.-]{1,253}")

_DOCKER_DEFAULT = IPv4Network("172.17.0.0/16")
_BRIDGES = frozenset(
    {f"172.{number}.0.1" for number in range(18, 32)}  # docker compose, one network each
    | {"192.168.122.1", "10.0.3.1", "10.88.0.1", "192.168.49.1"}  # libvirt, lxc, podman, minikube
)
"""The host's own end of bridges that exist alike on many machines: rarely the way to anybody."""

_BROADCAST = IPv4Address("255.255.255.255")

Address = IPv4Address | IPv6Address


class Rank(IntEnum):
    """How likely an address is the good way to a node; lower is tried first."""

    THIS_MACHINE = 0
    NEAR = 1  # in one of our own subnets
    ROUTED_V4 = 2
    ROUTED_V6 = 3
    LINK_LOCAL = 4
    BRIDGE = 5  # docker, libvirt and such, or an address we carry ourselves
    FOREIGN_LOOPBACK = 6  # loopback of a node that seems to be elsewhere


def split_target(text: str) -> tuple[str, int]:
    """Split `host:port`, `tcp://host:port` or `[v6]:port` into host and port.

    The host may be a name or an address, the latter without brackets.

    Raises:
        ValueError: with what is wrong, to be told to whoever wrote it.
    """
    rest = text.removeprefix(SCHEME)
    if "://" in rest:
        raise ValueError("only tcp:// is spoken")
    if rest.startswith("["):
        host, closed, port_text = rest[1:].partition("]")
        if not closed:
            raise ValueError("its [ has no ]")
        if not port_text.startswith(":"):
            raise ValueError("no :port after the ]")
        port_text = port_text[1:]
    else:
        host, colon, port_text = rest.rpartition(":")
        if not colon:
            raise ValueError("no :port")
        if ":" in host:
            raise ValueError("an IPv6 address needs brackets, as in [::1]:5555")
        if not _HOST_NAME.fullmatch(host):
            raise ValueError(f"{host!r} is neither an address nor a host name")
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        raise ValueError(f"{port_text!r} is not a port")
    port = int(port_text)
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is not in 1..65535")
    return host, port


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and port one can dial. `str` writes it the one way tables compare it in."""

    address: Address
    port: int

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Read an endpoint whose host is an address.

        Raises:
            ValueError: for names, for addresses nobody can dial (unspecified, multicast,
                broadcast), and for link-local IPv6 without its interface.
        """
        host, port = split_target(text)
        return cls(_dialable(host), port)

    @property
    def host(self) -> str:
        """The address alone, as `Membership.on_local_endpoints` and `rank` compare it."""
        return str(self.address)

    def __str__(self) -> str:
        if self.address.version == 4:
            return f"{SCHEME}{self.address}:{self.port}"
        return f"{SCHEME}[{self.address}]:{self.port}"


def _dialable(host: str) -> Address:
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif not address.is_link_local:
            address = IPv6Address(int(address))  # a scope means nothing here
        elif address.scope_id is None:
            raise ValueError("a link-local IPv6 address needs its interface, as in fe80::1%eth0")
        elif not _SCOPE.fullmatch(address.scope_id):
            raise ValueError(f"{address.scope_id!r} is not an interface")
    if address.is_unspecified or address.is_multicast or address == _BROADCAST:
        raise ValueError(f"{host} is no address one can dial")
    return address


def dialable(
    texts: Iterable[str], endpoints_max: int, *, scoped: bool = True
) -> tuple[tuple[str, ...], int]:
    """Return the endpoints among `texts`, normalized and each once, and how many were dropped.

    With `scoped` False link-local IPv6 is dropped too: the interface it names is the sender's.
    Looks at four times `endpoints_max` texts at most, and keeps `endpoints_max`.
    """
    kept: dict[str, None] = {}
    dropped = 0
    for index, text in enumerate(texts):
        if len(kept) == endpoints_max or index == 4 * endpoints_max:
            dropped += 1
            continue
        try:
            endpoint = Endpoint.parse(text)
        except ValueError:
            dropped += 1
            continue
        if not scoped and endpoint.address.version == 6 and endpoint.address.is_link_local:
            dropped += 1
            continue
        kept[str(endpoint)] = None
    return tuple(kept), dropped


def is_loopback(endpoint: str) -> bool:
    """Return whether an endpoint (normalized) is on this machine, whoever says so."""
    return Endpoint.parse(endpoint).address.is_loopback


def leading_to(told: Iterable[str], here: Collection[str], own: Collection[str]) -> list[str]:
    """Return at which of the endpoints a peer told of a connection says something of that peer.

    An address this machine has as well, loopback or a bridge of docker's, leads to ourselves,
    unless the peer is on this machine: then it told of no others. A link-local address names an
    interface of the peer's, so it counts only where there is nothing else.

    Args:
        told: by the peer, unchecked.
        here: the addresses this node listens on itself.
        own: its endpoints (normalized).
    """
    ours = [ip_address(host) for host in here]
    parsed: dict[str, Endpoint] = {}
    for text in told:
        with suppress(ValueError):
            parsed[text] = Endpoint.parse(text)
    elsewhere = {
        text: endpoint
        for text, endpoint in parsed.items()
        if not endpoint.address.is_loopback and endpoint.address not in ours
    }
    possible = elsewhere or parsed
    routed = [text for text, each in possible.items() if not each.address.is_link_local]
    return [text for text in routed or possible if str(parsed[text]) not in own]


def in_order(endpoints: Collection[str], here: Collection[str]) -> list[str]:
    """Return one node's endpoints (normalized) in the order to try them, most likely first.

    Args:
        endpoints: where the node says it listens.
        here: the addresses this node listens on itself; they tell near from far.
    """
    parsed = {text: Endpoint.parse(text).address for text in endpoints}
    ours = [ip_address(host) for host in here]
    together = _on_this_machine(parsed.values(), ours)
    return sorted(parsed, key=lambda text: _rank(parsed[text], ours, together=together))


def _on_this_machine(addresses: Collection[Address], ours: Collection[Address]) -> bool:
    if all(address.is_loopback for address in addresses):
        return True
    return any(
        address in ours and not address.is_loopback and not _is_bridge(address)
        for address in addresses
    )


def _rank(address: Address, ours: Collection[Address], *, together: bool) -> Rank:
    if address.is_loopback:
        return Rank.THIS_MACHINE if together else Rank.FOREIGN_LOOPBACK
    if address.is_link_local:
        return Rank.LINK_LOCAL
    near = any(_same_subnet(address, our) for our in ours)
    if address in ours or (_is_bridge(address) and not near):
        return Rank.BRIDGE
    if near:
        return Rank.NEAR
    return Rank.ROUTED_V4 if address.version == 4 else Rank.ROUTED_V6


def _is_bridge(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        return False
    return address in _DOCKER_DEFAULT or str(address) in _BRIDGES


def _same_subnet(left: Address, right: Address) -> bool:
    # Nobody announces prefix lengths; /24 and /64 are what LANs have.
    if left.version != right.version:
        return False
    return int(left) >> 8 == int(right) >> 8 if left.version == 4 else _prefix64(left, right)


def _prefix64(left: Address, right: Address) -> bool:
    return int(left) >> 64 == int(right) >> 64
