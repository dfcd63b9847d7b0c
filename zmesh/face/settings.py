"""What a node was told: its options checked, with what the environment adds."""

import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from zeroconf.asyncio import AsyncZeroconf

from zmesh.discovery.static import Target, targets_of
from zmesh.errors import InvalidOption
from zmesh.face.checks import check_port, check_yes_no
from zmesh.face.key_sources import NO_KEYS, KeyArgument, KeySources, ReadKeys, key_sources
from zmesh.face.listening import EVERYWHERE, KEY_NEEDED, check_interfaces
from zmesh.face.storage_checks import storage_of
from zmesh.face.trust_watch import TrustArgument, check_trust
from zmesh.face.verifying import Verify, check_verify
from zmesh.options import NodeOptions, Storage
from zmesh.security.key_files import Stamp
from zmesh.security.mesh_key import MeshKey
from zmesh.security.trust import Trust
from zmesh.terms import Compression, Role
from zmesh.wire.bodies import check_text
from zmesh.wire.compression import algorithm_of

MESH_DEFAULT = "default"

Announce = Literal["name", "id-only"]
"""What mDNS tells everybody on the network beside a node's id and addresses."""

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
    keys: tuple[MeshKey, ...] = ()  # the primary one first
    key_sources: KeySources = NO_KEYS
    key_stamps: tuple[Stamp | None, ...] = ()  # of the files, when `keys` were read
    announces_name: bool = True
    trust: Path | Trust | None = None  # a directory, or whom to trust
    sign: bool = False
    verify: Verify = "if-signed"
    is_edge: bool = False  # has links with hubs alone

    @property
    def may_leave_loopback(self) -> bool:
        """Whether it may talk over a network: encrypted, or because the operator said so."""
        return bool(self.keys) or self.insecure

    @property
    def shown(self) -> str:
        """How a node that has these shows itself."""
        return f"<Node {self.name!r} of mesh {self.mesh!r}>"


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
    key: KeyArgument | None = None,
    announce: Announce | None = None,
    trust: TrustArgument | None = None,
    sign: bool = False,
    verify: Verify = "if-signed",
    role: Role = "hub",
    environment: Mapping[str, str],
) -> Settings:
    """Check a node's arguments, and add what the environment says.

    Raises:
        InvalidOption: naming the argument or the variable that cannot work.
        MissingPackage: the compression needs it.
        SecurityError: a mesh key or its file cannot be used; the kind of it tells why.
    """
    if name is None:
        name = f"{socket.gethostname().partition('.')[0]}-{os.getpid()}"
    if mesh is None:
        mesh = environment.get("ZMESH_MESH") or MESH_DEFAULT
    _check_names(name, mesh, options)
    _check_answers(mdns=mdns, insecure=insecure, sign=sign)
    check_port(port)
    _check_choices(announce, verify, role, compression)
    _check_responder(zeroconf, mdns=mdns)
    sources = key_sources(key, mesh, environment)
    read = sources.read()
    room = options.candidates_max // 2
    written = {
        option: targets_of(option, given, f"ZMESH_{option.upper()}", environment, room)
        for option, given in (("peers", peers), ("seeds", seeds))
    }
    _check_security(sources, read, interfaces, written, insecure=insecure)
    if interfaces is None and read.keys:
        interfaces = EVERYWHERE
    return Settings(
        name=name,
        mesh=mesh,
        peers=written["peers"],
        seeds=written["seeds"],
        mdns=mdns,
        interfaces=None if interfaces is None else tuple(interfaces),
        port=port,
        insecure=insecure,
        options=options,
        zeroconf=zeroconf,
        compression=compression,
        storage=storage_of(storage),
        keys=read.keys,
        key_sources=sources,
        key_stamps=read.stamps,
        trust=check_trust(trust, has_key=bool(read.keys)),
        announces_name=announce == "name" or (announce is None and not read.keys),
        sign=sign,
        verify=verify,
        is_edge=role == "edge",
    )


def _check_names(name: str, mesh: str, options: NodeOptions) -> None:
    for option, value in (("name", name), ("mesh", mesh)):
        if not isinstance(value, str) or not value or _NOT_PRINTABLE.search(value):
            raise InvalidOption(option, value, "a text of printable characters")
        check_text(option, value, options.wire)


def _check_answers(**answers: object) -> None:
    for option, value in answers.items():
        check_yes_no(option, value)


def _check_responder(zeroconf: object, *, mdns: bool) -> None:
    if zeroconf is not None and not mdns:
        raise InvalidOption("zeroconf", zeroconf, "None where mdns=False")


def _check_choices(
    announce: object, verify: object, role: object, compression: Compression | None
) -> None:
    algorithm_of(compression)
    if announce not in (None, "name", "id-only"):
        raise InvalidOption("announce", announce, '"name" or "id-only"')
    check_verify(verify)
    if role not in get_args(Role):
        raise InvalidOption("role", role, '"hub" or "edge"')


def _check_security(
    sources: KeySources,
    read: ReadKeys,
    interfaces: Sequence[str] | None,
    written: Mapping[str, Iterable[Target]],
    *,
    insecure: bool,
) -> None:
    """Refuse what would go over the network without encryption and nobody asked for."""
    if insecure and read.keys:
        expected = (
            f"False where there is a mesh key (from {sources.told_by}): it encrypts everything; "
            "key=() is no key"
        )
        raise InvalidOption("insecure", insecure, expected)
    allowed = insecure or bool(read.keys)
    if interfaces is not None:
        check_interfaces(interfaces, allowed=allowed)
    if allowed:
        return
    for option, targets in written.items():
        for target in targets:  # names are looked at when they are resolved
            endpoint = target.endpoint
            if endpoint is not None and not endpoint.address.is_loopback:
                raise InvalidOption(option, target.text, KEY_NEEDED)
