"""Where a node listens, and what it tells others about it.

On loopback without a mesh key, everywhere with one: what goes over a network is encrypted, unless
the operator says `insecure=True`.
"""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from zmesh.discovery.endpoints import Endpoint
from zmesh.discovery.interfaces import ALL, Interfaces, endpoints_on, select
from zmesh.errors import InvalidOption
from zmesh.face.checks import check_texts

LOOPBACK: Final = "127.0.0.1"
EVERYWHERE: Final = (ALL,)

KEY_NEEDED: Final = (
    "loopback only, or a mesh key (`zmesh keys new`), or insecure=True: without a key nothing is "
    "encrypted, and everybody on the network can read and send messages"
)
"""Why an interface, or a peer on the network, is refused."""


def check_interfaces(wanted: Sequence[str], *, allowed: bool) -> None:
    """Check what can be checked before the machine's interfaces are known.

    Raises:
        InvalidOption: nothing is named, or something on the network where that is not allowed.
    """
    check_texts("interfaces", wanted, "a list of interface names or addresses, or '*'")
    if not allowed and any(each == ALL or _is_foreign_address(each) for each in wanted):
        raise InvalidOption("interfaces", list(wanted), KEY_NEEDED)


def _is_foreign_address(text: str) -> bool:
    try:
        return not ip_address(text).is_loopback
    except ValueError:
        return False  # the name of an interface


@dataclass(frozen=True, slots=True)
class Listening:
    """The addresses a node binds."""

    hosts: tuple[str, ...]
    is_everywhere: bool = False  # on all interfaces, those included that come later

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        return not self.is_everywhere and all(ip_address(host).is_loopback for host in self.hosts)

    def endpoints(self, bound: Sequence[str], interfaces: Interfaces) -> tuple[str, ...]:
        """Return the endpoints to tell others, of those that were bound."""
        if not self.is_everywhere:
            return tuple(bound)
        return endpoints_on(interfaces, int(bound[0].rpartition(":")[2]))


def plan(wanted: Sequence[str], interfaces: Interfaces, *, allowed: bool) -> Listening:
    """Return where to listen.

    Args:
        wanted: names or addresses of interfaces, or "*".
        interfaces: the machine's.
        allowed: whether it may be reached from the network.

    Raises:
        InvalidOption: none of the interfaces is there, or one may not be listened on.
    """
    if ALL in wanted:
        has_version_6 = any(":" in each for one in interfaces for each in one.addresses)
        return Listening(("::" if has_version_6 else "0.0.0.0",), is_everywhere=True)  # noqa: S104
    listening = Listening(_hosts(wanted, interfaces))
    if not listening.hosts:
        here = ", ".join(one.name for one in interfaces) or "none"
        raise InvalidOption("interfaces", list(wanted), f"at least one that is up (here: {here})")
    if not (allowed or listening.is_loopback):
        raise InvalidOption("interfaces", list(wanted), KEY_NEEDED)
    return listening


def replan(wanted: Sequence[str], interfaces: Interfaces, *, allowed: bool) -> Listening:
    """Return where to listen once the interfaces that were named have changed; maybe nowhere.

    Where only loopback is allowed, an interface is not followed to another address: it had none
    when the node opened, and else would have been refused.
    """
    hosts = _hosts(wanted, interfaces)
    if not allowed:
        hosts = tuple(host for host in hosts if ip_address(host).is_loopback)
    return Listening(hosts)


def _hosts(wanted: Sequence[str], interfaces: Interfaces) -> tuple[str, ...]:
    """Return the addresses of the interfaces that are wanted, as others will dial them.

    Link-local IPv6 needs the interface, which is ours.
    """
    addresses = [each for one in select(interfaces, wanted) for each in one.addresses]
    return tuple(dict.fromkeys(Endpoint(ip_address(each), 1).host for each in addresses))


def common_port(hosts: Sequence[str]) -> int:
    """Return a port that is free on all hosts: what announces them has room for one.

    Raises:
        OSError: no such port was found.
    """
    error: OSError | None = None
    for _ in range(16):
        with ExitStack() as open_sockets:
            port = 0
            try:
                for host in hosts:
                    port = _bind(open_sockets, host, port)
            except OSError as raised:
                error = raised
                continue
            return port
    raise OSError(f"no port is free on all of {', '.join(hosts)}") from error


def _bind(open_sockets: ExitStack, host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = open_sockets.enter_context(socket.socket(family, kind, protocol))
    listener.bind(address)
    bound: int = listener.getsockname()[1]
    return bound
