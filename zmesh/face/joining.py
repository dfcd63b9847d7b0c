"""`zmesh.join`: this device gets the mesh key by the code that another one shows."""

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncZeroconf

from zmesh.bounds import check_is
from zmesh.discovery.blocking import in_thread
from zmesh.discovery.endpoints import dialable, in_order
from zmesh.discovery.invitations import Invited, find, responder_on
from zmesh.discovery.static import Target, resolve, targets
from zmesh.errors import InvalidOption
from zmesh.face import meeting
from zmesh.face.system import SystemEntropy
from zmesh.joining_errors import (
    AmbiguousInvitation,
    InvitationBroken,
    InvitationBusy,
    KeyFileExists,
    NobodyInvites,
    OtherMesh,
)
from zmesh.options import JoiningOptions
from zmesh.security.join_code import JoinCode
from zmesh.security.join_exchange import check_installed
from zmesh.security.joining import Joiner, KeysReceived, MeshNamed, SendMessage
from zmesh.security.key_files import check_place, create_key_file, default_key_file, text_of
from zmesh.security.mesh_key import MeshKey

_ADDRESSES_MAX = 16
_STAGGER = 0.25
"""Seconds between the addresses of one device: the first mostly answers sooner (RFC 8305)."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class JoinedMesh:
    """What this device got: `zmesh.Node(mesh=...)` is in the mesh from now on."""

    mesh: str
    fingerprint: str  # of the key; the inviting side shows the same
    path: Path  # of the key file
    address: str  # who invited


async def join(
    code: str,
    *,
    mesh: str | None = None,
    file: str | os.PathLike[str] | None = None,
    at: str | None = None,
    interfaces: Sequence[str] | None = None,
    options: JoiningOptions = JoiningOptions(),  # noqa: B008  # frozen
    zeroconf: AsyncZeroconf | None = None,
) -> JoinedMesh:
    """Get the key of the mesh that another device invites to, and keep it.

    Args:
        code: what `zmesh.invite` shows; case, spaces, and O for 0 or I for 1 do not matter.
        mesh: the only mesh to join; whichever the invitation is to by default.
        file: where to keep the key, readable by its owner alone; by default where `Node` looks
            for it. There must be nothing yet.
        at: `host:port` of the inviting device, where mDNS does not reach.
        interfaces: names or addresses of network interfaces to look on; all by default.
        options: limits and times.
        zeroconf: the application's own mDNS responder, to be used instead of one of ours.

    Raises:
        InvalidCode: that is no code; nothing was sent.
        JoinFailed: its kind says why there is no key, and what to do.
        KeyFileError: no key can be kept there, and the invitation still waits; or the disk failed
            after all, and it is used up.
        InvalidOption: an argument cannot work.
        MissingPackage: `zmesh[join]` is not installed.
    """
    check_installed()
    check_is("options", options, JoiningOptions)
    parsed = JoinCode.parse(code)
    wanted = None if mesh is None else meeting.check_mesh(mesh)
    if file is not None and not isinstance(file, str | os.PathLike):
        raise InvalidOption("file", file, "the path of a file")
    place = None if file is None else Path(file)
    if place is None and wanted is not None:
        place = _default(wanted)
    if place is not None:
        await in_thread(partial(_check_free, place), "zmesh-key-file")
    names = meeting.check_interfaces(interfaces)
    if at is not None:
        [target] = targets("at", [at], 1)
        endpoints = await _endpoints_at(target, parsed)
    else:
        endpoints = await _endpoints_found(parsed, names, options, zeroconf)
    reader, writer = await _connect(endpoints, parsed, options)
    try:
        guest = _Guest(reader, writer, parsed, options)
        return await guest.join(wanted, place)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


class _Guest:
    """One exchange over one connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        code: JoinCode,
        options: JoiningOptions,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._options = options
        self._address = meeting.address_text(writer.get_extra_info("peername"))
        self._joiner = Joiner(code, self._address, SystemEntropy())

    async def join(self, wanted: str | None, place: Path | None) -> JoinedMesh:
        self._writer.write(self._joiner.hello)
        name = ""
        seconds = self._options.turn_max
        while True:
            for action in self._joiner.receive(await self._read(seconds)):
                match action:
                    case SendMessage(data):
                        self._writer.write(data)
                    case MeshNamed(name):
                        if wanted not in (None, name):
                            raise OtherMesh(str(wanted), name)
                        place = place or _default(name)
                        await in_thread(partial(_check_free, place), "zmesh-key-file")
                        self._writer.write(self._joiner.accept())
                    case KeysReceived(keys):
                        assert place is not None  # noqa: S101  # since the mesh was named
                        await self._keep(keys, name, place)
                        return JoinedMesh(name, keys[0].fingerprint, place, self._address)
                seconds = self._options.answer_max

    async def _keep(self, keys: tuple[MeshKey, ...], mesh: str, place: Path) -> None:
        text = text_of(keys, f"mesh {mesh}, by invitation of {self._address}")
        await in_thread(partial(create_key_file, place, text), "zmesh-key-file")
        with suppress(OSError):  # the key is here; they will say that they do not know it
            self._writer.write(self._joiner.saved())
            await self._writer.drain()

    async def _read(self, seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                data = await self._reader.read(meeting.READ_BYTES)
        except TimeoutError:
            raise InvitationBusy(self._address) from None
        except OSError as error:
            raise InvitationBroken(self._address, error.strerror or str(error)) from error
        if not data:
            raise InvitationBroken(self._address, "it hung up")
        return data


def _default(mesh: str) -> Path:
    place = default_key_file(mesh, os.environ)
    if place is None:
        raise InvalidOption("file", None, "a path, for no home directory is known")
    return place


def _check_free(place: Path) -> None:
    # Before there is a key to lose: whoever knows the code may still try again.
    if place.is_dir():
        raise InvalidOption("file", str(place), "the path of a file, and no directory")
    if os.path.lexists(place):
        raise KeyFileExists(str(place))
    check_place(place)


# Finding


async def _endpoints_found(
    code: JoinCode,
    wanted: Sequence[str],
    options: JoiningOptions,
    zeroconf: AsyncZeroconf | None,
) -> list[str]:
    interfaces = await meeting.chosen_interfaces(wanted)
    try:
        async with responder_on(meeting.mdns_on(interfaces), zeroconf) as responder:
            found = await find(responder, code.nameplate, options)
    except (OSError, RuntimeError, ZeroconfError) as error:
        why = f"mDNS does not work here: {error}"
        raise NobodyInvites(code.nameplate, why) from error
    if not found:
        raise NobodyInvites(code.nameplate, f"nothing by mDNS within {options.find_max:g} s")
    here = meeting.hosts_of(interfaces)
    readable = [in_order(_dialable(each), here) for each in found]
    if len(found) > 1:
        raise AmbiguousInvitation(code.nameplate, [each[0] for each in readable if each])
    return readable[0]


def _dialable(invited: Invited) -> tuple[str, ...]:
    texts = [f"[{address}]:{invited.port}" for address in invited.addresses]
    return dialable(texts, _ADDRESSES_MAX)[0]


async def _endpoints_at(target: Target, code: JoinCode) -> list[str]:
    try:
        addresses = await in_thread(partial(resolve, target.host), "zmesh-resolve")
    except OSError as error:
        why = f"{target.host}: {error.strerror or error}"
        raise NobodyInvites(code.nameplate, why) from error
    texts = [f"[{address}]:{target.port}" for address in addresses]
    return list(dialable(texts, _ADDRESSES_MAX)[0])


async def _connect(
    endpoints: Sequence[str], code: JoinCode, options: JoiningOptions
) -> Connection:
    """Return a connection to the first address that answers."""
    failures: list[str] = []
    pending: set[asyncio.Task[Connection]] = set()
    left = list(endpoints)
    try:
        async with asyncio.timeout(options.connect_max):
            while left or pending:
                if left:
                    pending.add(asyncio.create_task(_dial(left.pop(0))))
                done, pending = await asyncio.wait(
                    pending,
                    timeout=_STAGGER if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    error = task.exception()
                    if error is None:
                        for other in done - {task}:
                            _abandon(other)
                        return task.result()
                    failures.append(str(error))
    except TimeoutError:
        failures.append("no answer")
    finally:
        for task in pending:
            task.cancel()
        for result in await asyncio.gather(*pending, return_exceptions=True):
            if not isinstance(result, BaseException):
                result[1].transport.abort()
    why = "; ".join(dict.fromkeys(failures)) or "it has no address that can be dialed"
    raise NobodyInvites(code.nameplate, why)


def _abandon(task: asyncio.Task[Connection]) -> None:
    if task.exception() is None:
        task.result()[1].transport.abort()


async def _dial(endpoint: str) -> Connection:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return await asyncio.open_connection(host.strip("[]"), int(port), limit=meeting.READ_BYTES)
