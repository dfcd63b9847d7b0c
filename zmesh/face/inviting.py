"""`zmesh.invite`: shows a code, and gives the mesh key to the one device that knows it."""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count
from types import TracebackType
from typing import Final, Self

from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncZeroconf

from zmesh.actions import Audited, AuditKind
from zmesh.bounds import check_is
from zmesh.discovery.invitations import Announcer, info_of, responder_on
from zmesh.errors import Closed, InvalidOption, UsageError
from zmesh.face import meeting
from zmesh.face.audit import Audit
from zmesh.face.checks import check_port, check_yes_no
from zmesh.face.key_sources import KeyArgument, key_sources
from zmesh.face.listening import common_port
from zmesh.face.settings import MESH_DEFAULT
from zmesh.face.system import SystemEntropy
from zmesh.joining_errors import InvitationDead, InvitationExpired, NothingToShare
from zmesh.options import JoiningOptions
from zmesh.security.invitation import (
    AttemptFailed,
    Connected,
    Disconnected,
    GuestJoined,
    HangUp,
    InvitationEnded,
    InvitationNews,
    InvitationState,
    Inviter,
    InviterEvent,
    Received,
    SendMessage,
    TimerFired,
)
from zmesh.security.join_code import JoinCode
from zmesh.security.join_exchange import check_installed
from zmesh.security.mesh_key import MeshKey

LINGER: Final = 1.0
"""Seconds a connection that was refused has to take the reason and hang up itself."""


class Invitation:
    """An invitation to a mesh; made by `zmesh.invite`. Good for one device, once.

    While its `async with` block lasts, the device that knows the code can join. Leaving the block
    withdraws it. Iterating tells what happens, up to `GuestJoined` or `InvitationEnded`.
    """

    def __init__(
        self,
        *,
        mesh: str,
        keys: tuple[MeshKey, ...],
        interfaces: tuple[str, ...],
        port: int,
        mdns: bool,
        options: JoiningOptions,
        zeroconf: AsyncZeroconf | None,
    ) -> None:
        self.mesh = mesh
        self.endpoints: list[str] = []
        """Where it can be reached, as `host:port`: for `at=` where mDNS does not reach."""
        self.mdns_failure = "" if mdns else "switched off"
        """Why it is not announced by mDNS; empty where it is."""
        self._keys = keys
        self._interfaces = interfaces
        self._port = port
        self._options = options
        self._zeroconf = zeroconf
        self._entropy = SystemEntropy()
        self._code = JoinCode.new(self._entropy)
        self._audit = Audit(f"invitation to {mesh}")
        self._inviter: Inviter | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._numbers = count(1)
        self._writers: dict[int, asyncio.StreamWriter] = {}  # that the inviter knows of
        self._lingering: dict[asyncio.StreamWriter, asyncio.TimerHandle] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self._news: asyncio.Queue[InvitationNews | None] = asyncio.Queue()  # attempts, and the end
        self._ending: GuestJoined | InvitationEnded | None = None
        self._ended = asyncio.Event()
        self._is_closed = False

    @property
    def code(self) -> str:
        """What to type on the other device. Whoever has it first gets the key."""
        return self._code.text

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of the key, which both devices show."""
        return self._keys[0].fingerprint

    @property
    def expires(self) -> float:
        """Seconds from its opening until it is over."""
        return self._options.expires

    async def __aenter__(self) -> Self:
        """Listen, and announce it.

        Raises:
            InvalidOption: an interface or port that cannot be listened on.
            UsageError: it was opened before.
        """
        if self._inviter is not None or self._is_closed:
            raise UsageError("an invitation is opened once: make a new one")
        loop = asyncio.get_running_loop()
        self._inviter = Inviter(
            self._code,
            self.mesh,
            self._keys,
            now_s=loop.time(),
            entropy=self._entropy,
            options=self._options,
        )
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        self._arm()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> InvitationNews:
        news = await self._news.get()
        if news is None:
            self._news.put_nowait(None)
            raise StopAsyncIteration
        return news

    async def joined(self) -> GuestJoined:
        """Wait for the device, and return what is known of it.

        Raises:
            InvitationExpired: nobody came in time.
            InvitationDead: there were too many wrong attempts.
            Closed: it was withdrawn meanwhile.
        """
        await self._ended.wait()
        match self._ending:
            case GuestJoined():
                return self._ending
            case InvitationEnded(InvitationState.EXPIRED):
                raise InvitationExpired
            case InvitationEnded():
                raise InvitationDead
            case None:
                raise Closed("invitation")

    async def close(self) -> None:
        """Withdraw it: nobody can join any more. Closing again does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._ended.set()
        self._news.put_nowait(None)
        for writer in list(self._writers.values()):
            writer.transport.abort()
        self._writers.clear()
        try:
            await self._stack.aclose()
        finally:
            if self._connections:  # the last ones refused are read to their end
                await asyncio.wait(self._connections)

    # Inside

    async def _open(self) -> None:
        interfaces = await meeting.chosen_interfaces(self._interfaces)
        is_everywhere = self._interfaces == meeting.EVERYWHERE
        hosts = [""] if is_everywhere else meeting.hosts_of(interfaces)
        port = self._port
        try:
            if not port and len(hosts) > 1:
                port = common_port(hosts)
            for host in hosts:
                listener = _listener(host, port)
                port = listener.getsockname()[1]
                server = await asyncio.start_server(
                    self._on_connection, sock=listener, limit=meeting.READ_BYTES
                )
                self._stack.callback(server.close)
        except OSError as error:
            expected = f"one that can be listened on ({error.strerror or error})"
            raise InvalidOption("port", self._port, expected) from error
        addresses = meeting.announced(interfaces)
        self.endpoints = [
            f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in addresses
        ]
        if self.mdns_failure:
            return
        info = info_of(self._code.nameplate, self._entropy.token(4), addresses, port)
        try:
            responder = responder_on(meeting.mdns_on(interfaces), self._zeroconf)
            zeroconf = await self._stack.enter_async_context(responder)
            await self._stack.enter_async_context(Announcer(zeroconf, info))
        except (OSError, RuntimeError, ZeroconfError) as error:
            self.mdns_failure = f"{type(error).__name__}: {error}"

    async def _on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        peer = writer.get_extra_info("peername")
        if task is None or self._is_closed:
            writer.transport.abort()
            return
        self._connections.add(task)
        number = next(self._numbers)
        self._writers[number] = writer
        try:
            self._handle(Connected(number, meeting.address_text(peer)))
            # What comes after we hung up is read and forgotten: closing on it would reset the
            # connection, and the reason might not arrive.
            while data := await reader.read(meeting.READ_BYTES):
                if number in self._writers:
                    self._handle(Received(number, data))
        except OSError:
            pass  # it is gone
        finally:
            if self._writers.pop(number, None) is not None:
                self._handle(Disconnected(number))
            lingering = self._lingering.pop(writer, None)
            if lingering is not None:
                lingering.cancel()
            writer.transport.abort()
            self._connections.discard(task)

    def _handle(self, event: InviterEvent, now_s: float | None = None) -> None:
        assert self._inviter is not None  # noqa: S101  # since it was opened
        if now_s is None:
            now_s = asyncio.get_running_loop().time()
        for action in self._inviter.handle(event, now_s):
            match action:
                case SendMessage(connection, data):
                    self._writers[connection].write(data)
                case HangUp(connection):
                    self._hang_up(self._writers.pop(connection))
                case _:
                    self._tell(action)
        self._arm()

    def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        if len(self._lingering) >= self._options.lingering_max or not writer.can_write_eof():
            writer.close()
            return
        try:
            writer.write_eof()
        except OSError:
            writer.transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._lingering[writer] = loop.call_later(LINGER, writer.transport.abort)

    def _tell(self, news: InvitationNews) -> None:
        match news:
            case AttemptFailed(address, why, left):
                detail = f"an attempt at the invitation failed: {why}; {left} left"
                self._audit.tell(Audited(AuditKind.WRONG_CODE, endpoint=address, detail=detail))
            case InvitationEnded(InvitationState.DEAD):
                detail = "the invitation is dead after too many wrong attempts"
                self._audit.tell(Audited(AuditKind.WRONG_CODE, detail=detail))
        self._news.put_nowait(news)
        if not isinstance(news, AttemptFailed):
            self._ending = news
            self._news.put_nowait(None)
            self._ended.set()

    def _arm(self) -> None:
        assert self._inviter is not None  # noqa: S101
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_s = self._inviter.deadline_s
        if deadline_s is not None and not self._is_closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(deadline_s, self._on_timer, deadline_s)

    def _on_timer(self, deadline_s: float) -> None:
        # Loop timers may wake early; the core must never see a time before its own deadline.
        self._handle(TimerFired(), max(deadline_s, asyncio.get_running_loop().time()))


def _listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address, or on all of them where it is empty."""
    if host:
        version_6 = ":" in host
        family = socket.AF_INET6 if version_6 else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=64)
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, backlog=64, dualstack_ipv6=True
        )
    return socket.create_server(("", port), backlog=64)


def invite(
    *,
    mesh: str | None = None,
    key: KeyArgument | None = None,
    interfaces: Sequence[str] | None = None,
    port: int = 0,
    mdns: bool = True,
    expires: float | None = None,
    options: JoiningOptions = JoiningOptions(),  # noqa: B008  # frozen
    zeroconf: AsyncZeroconf | None = None,
) -> Invitation:
    """Invite one device to a mesh: it gets the mesh key by a short code.

    ```python
    async with zmesh.invite(mesh="cameras") as invitation:
        print(invitation.code)
        guest = await invitation.joined()
    ```

    Args:
        mesh: its name; `ZMESH_MESH` or "default".
        key: of the mesh, as `Node` takes it. All keys go along, the first to be used.
        interfaces: names or addresses of network interfaces to listen on; all of them by
            default, because the new device is on a network.
        port: to listen on; any free one by default.
        mdns: whether it can be found by its code alone.
        expires: seconds until it is over; ten minutes by default.
        options: limits and times.
        zeroconf: the application's own mDNS responder, to be used instead of one of ours.

    Raises:
        NothingToShare: there is no key of this mesh here.
        InvalidOption, SecurityError: an argument, or the key, cannot work.
        MissingPackage: `zmesh[join]` is not installed.
    """
    check_installed()
    check_is("options", options, JoiningOptions)
    name = meeting.check_mesh(mesh or os.environ.get("ZMESH_MESH") or MESH_DEFAULT)
    check_port(port)
    check_yes_no("mdns", mdns)
    if zeroconf is not None and not mdns:
        raise InvalidOption("zeroconf", zeroconf, "None where mdns=False")
    if expires is not None:
        options = replace(options, expires=meeting.check_seconds("expires", expires))
    keys = key_sources(key, name, os.environ).read().keys
    if not keys:
        raise NothingToShare(name)
    return Invitation(
        mesh=name,
        keys=keys,
        interfaces=meeting.check_interfaces(interfaces),
        port=port,
        mdns=mdns,
        options=options,
        zeroconf=zeroconf,
    )
