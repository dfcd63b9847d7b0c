"""What a node was told: its options checked, with what the environment adds."""

import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from zeroconf.asyncio import AsyncZeroconf

from zmesh.discovery.static import Target, targets_of
from zmesh.errors import InvalidOption
from zmesh.face.listening import check_interfaces
from zmesh.face.storage_checks import storage_of
from zmesh.face.verifying import Verify, check_verify
from zmesh.options import NodeOptions, Storage
from zmesh.terms import Compression
from zmesh.wire.bodies import check_text
from zmesh.wire.compression import algorithm_of

MESH_DEFAULT = "default"

_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a node needs to know before it opens."""

    name: str
    mesh: str
    peers: tuple[Target, ...]
    seeds: tuple[Target, ...]
    mdns: bool
    interfaces: tuple[str, ...] | None  # None: 127.0.0.1 alone
    port: int
    insecure: bool
    options: NodeOptions
    zeroconf: AsyncZeroconf | None
    compression: Compression | None = None
    storage: Storage | None = None
    sign: bool = False
    verify: Verify = "if-signed"


def settle(
    *,
    name: str | None,
    mesh: str | None,
    peers: Iterable[str],
    seeds: Iterable[str],
    mdns: bool,
    interfaces: Sequence[str] | None,
    port: int,
    insecure: bool,
    options: NodeOptions,
    zeroconf: AsyncZeroconf | None,
    compression: Compression | None = None,
    storage: str | os.PathLike[str] | Storage | None = None,
    sign: bool = False,
    verify: Verify = "if-signed",
    environment: Mapping[str, str],
) -> Settings:
    """Check a node's arguments, and add what the environment says.

    Raises:
        InvalidOption: naming the argument or the variable that cannot work.
        MissingPackage: the compression needs it.
    """
    if name is None:
        name = f"{socket.gethostname().partition('.')[0]}-{os.getpid()}"
    if mesh is None:
        mesh = environment.get("ZMESH_MESH") or MESH_DEFAULT
    for option, value in (("name", name), ("mesh", mesh)):
        if not value or _NOT_PRINTABLE.search(value):
            raise InvalidOption(option, value, "a text of printable characters")
        check_text(option, value, options.wire)
    if not 0 <= port <= 65535:
        raise InvalidOption("port", port, "0 for any free one, or up to 65535")
    if interfaces is not None:
        check_interfaces(interfaces, insecure=insecure)
    if zeroconf is not None and not mdns:
        raise InvalidOption("zeroconf", zeroconf, "None where mdns=False")
    algorithm_of(compression)
    if type(sign) is not bool:
        raise InvalidOption("sign", sign, "True or False")
    check_verify(verify)
    room = options.candidates_max // 2
    return Settings(
        name=name,
        mesh=mesh,
        peers=targets_of("peers", peers, "ZMESH_PEERS", environment, room),
        seeds=targets_of("seeds", seeds, "ZMESH_SEEDS", environment, room),
        mdns=mdns,
        interfaces=None if interfaces is None else tuple(interfaces),
        port=port,
        insecure=insecure,
        options=options,
        zeroconf=zeroconf,
        compression=compression,
        storage=storage_of(storage),
        sign=sign,
        verify=verify,
    )
