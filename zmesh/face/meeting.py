"""What inviting and joining share: where they listen and look, and what they check alike."""

import math
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from zmesh.discovery.blocking import in_thread
from zmesh.discovery.endpoints import Endpoint
from zmesh.discovery.interfaces import ALL, Interfaces, list_interfaces, mdns_addresses, select
from zmesh.discovery.mdns import LOOPBACK
from zmesh.errors import InvalidOption
from zmesh.face.checks import check_texts
from zmesh.security.join_frames import MESH_BYTES_MAX

EVERYWHERE: Final = (ALL,)
READ_BYTES: Final = 1024
"""Read at once; no message is longer."""


async def chosen_interfaces(wanted: Sequence[str]) -> Interfaces:
    """Return the interfaces that are wanted, by name, address or "*".

    Raises:
        InvalidOption: none of them is there.
    """
    there = await in_thread(list_interfaces, "zmesh-interfaces")
    chosen = select(there, wanted)
    if not chosen:
        here = ", ".join(one.name for one in there) or "none"
        raise InvalidOption("interfaces", list(wanted), f"at least one that is up (here: {here})")
    return chosen


def hosts_of(interfaces: Interfaces) -> list[str]:
    """Return the addresses of interfaces, as they are listened on."""
    return [str(ip_address(each)) for interface in interfaces for each in interface.addresses]


def mdns_on(interfaces: Interfaces) -> tuple[str, ...]:
    """Return the addresses that mDNS uses for these interfaces."""
    if all(ip_address(host).is_loopback for host in hosts_of(interfaces)):
        return LOOPBACK
    return mdns_addresses(interfaces)


def announced(interfaces: Interfaces) -> list[str]:
    """Return the addresses to tell others: loopback only where there is nothing else."""
    hosts = hosts_of(interfaces)
    return [host for host in hosts if not ip_address(host).is_loopback] or hosts


def check_interfaces(wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return what `interfaces=` names, everything by default; raises InvalidOption."""
    if wanted is None:
        return EVERYWHERE
    check_texts("interfaces", wanted, "a list of interface names or addresses, or '*'")
    return tuple(wanted)


def check_mesh(name: str) -> str:
    """Return the name of a mesh that an invitation can be to; raises InvalidOption."""
    if (
        not isinstance(name, str)
        or not name
        or not name.isprintable()
        or len(name.encode()) > MESH_BYTES_MAX
    ):
        expected = f"a text of printable characters, {MESH_BYTES_MAX} bytes at most"
        raise InvalidOption("mesh", name, expected)
    return name


def check_seconds(option: str, value: float) -> float:
    """Return a time above zero; raises InvalidOption."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and value > 0):
        raise InvalidOption(option, value, "seconds, more than 0")
    return value


def address_text(peer: tuple[str, int] | tuple[str, int, int, int] | None) -> str:
    """Return a socket's address as people read it; without the IPv6 form of IPv4."""
    if peer is None:
        return "an address unknown"  # it went away before it was looked at
    try:
        return str(Endpoint.parse(f"[{peer[0]}]:{peer[1]}")).removeprefix("tcp://")
    except ValueError:
        return f"{peer[0]}:{peer[1]}"
