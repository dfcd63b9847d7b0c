"""The outbound half: one DEALER for every path dialed."""

import asyncio
import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import zmq

from zmesh.actions import AuditKind, Trace
from zmesh.discovery.endpoints import Endpoint
from zmesh.errors import UsageError
from zmesh.events import (
    PacketsReceived,
    PathCause,
    PathDown,
    PathFull,
    PathUp,
    PathWritable,
)
from zmesh.ids import Path
from zmesh.options import TransportOptions, WireLimits
from zmesh.transport.auditing import Auditing
from zmesh.transport.counters import Counters
from zmesh.transport.curve import CurveKeys
from zmesh.transport.descriptors import descriptors_left
from zmesh.transport.doorkeeper import MECHANISM_MISMATCH
from zmesh.transport.keyring import Keyring
from zmesh.transport.news import News
from zmesh.transport.probes import Probes
from zmesh.transport.pump import REFUSED_FULL, Intake, Packets, push
from zmesh.transport.sockets import Socket, Sockets

WARNING: Final = 30
"""The level of a `Trace`, as in logging."""


_ENDED: Final = (errno.EPIPE, errno.ECONNRESET)
"""With a handshake that failed: the other side closed the connection, or reset it."""

_NO_KEY_THERE: Final = "who listens there uses no mesh key, and this node does"
_NO_KEY_HERE: Final = "who listens there uses a mesh key, and this node has none"
_OTHER_KEY_THERE: Final = "who listens there uses another mesh key than this node"


@dataclass(slots=True, eq=False)
class _Connection:
    """What a dialed path has while it lives."""

    socket: Socket
    key: bytes  # its name at the monitors' ear
    intake: Intake


@dataclass(slots=True, eq=False)
class _Dialed:
    """A path, from its dial until its end was told."""

    endpoint: Endpoint
    timer: asyncio.TimerHandle  # gives up a dial that has no outcome
    connection: _Connection | None  # None while a probe finds out why it failed
    keys: list[bytes]  # of the server, left to be tried: that of the connection first
    is_up: bool = False
    is_full: bool = False


class Dialer:
    """Dials, and carries what goes and comes on the paths that were dialed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sockets,
        options: TransportOptions,
        limits: WireLimits,
        news: News,
        counters: Counters,
        probes: Probes,
        auditing: Auditing,
        *,
        dial_timeout: float,
        on_trace: Callable[[Trace], None],
        curve: CurveKeys | None = None,
    ) -> None:
        self._loop = loop
        self._sockets = sockets
        self._options = options
        self._limits = limits
        self._news = news
        self._counters = counters
        self._probes = probes
        self._auditing = auditing
        self._keyring = Keyring(curve, options.keys_remembered_max)
        self._dial_timeout = dial_timeout
        self._on_trace = on_trace
        self._dialed: dict[int, _Dialed] = {}
        self._paths: dict[Path, int] = {}  # by key at the ear

    @property
    def intakes(self) -> list[Intake]:
        """Those of all connections."""
        return [dialed.connection.intake for dialed in self._dialed.values() if dialed.connection]

    def dial(self, path: int, text: str) -> None:
        """Connect to an endpoint. Every end of it comes as news, none as an exception."""
        if path in self._dialed:
            raise UsageError(f"path {path} is dialed already: number every dial anew")
        self._counters.dials += 1
        needed = self._options.dial_descriptors
        try:
            endpoint = Endpoint.parse(text)
        except ValueError as error:
            self._refuse(path, text, str(error))
            return
        if descriptors_left(needed) < needed:
            self._refuse(path, text, "no file descriptors left: raise the limit (ulimit -n)")
            return
        keys = self._keyring.to_try(str(endpoint))
        try:
            connection = self._connect(path, endpoint, keys[0])
        except zmq.ZMQError as error:
            self._refuse(path, text, f"{error}: raise sockets_max or the limit (ulimit -n)")
            return
        timer = self._loop.call_later(self._dial_timeout, self._on_timeout, path)
        self._dialed[path] = _Dialed(endpoint, timer, connection, keys)
        self._paths[connection.key] = path

    def hang_up(self, path: int) -> None:
        """Close a path; nothing is told."""
        dialed = self._dialed.pop(path, None)
        if dialed is not None:
            dialed.timer.cancel()
            self._disconnect(dialed)

    def send(self, path: int, packets: Sequence[Sequence[bytes | memoryview]]) -> None:
        """Send on a path."""
        dialed = self._dialed.get(path)
        if dialed is None or dialed.connection is None:
            self._counters.packets_unroutable += 1
            if dialed is None:  # else its end is still to be told
                self._news.later(PathDown(path, PathCause.UNROUTABLE))
            return
        connection = dialed.connection
        refused = push(connection.socket, None, packets, self._counters)
        connection.intake.look()
        if refused == REFUSED_FULL:
            self._counters.packets_full += 1
            if not dialed.is_full:
                dialed.is_full = True
                connection.intake.await_room()
                self._news.later(PathFull(path))

    def rekey(self, keys: CurveKeys) -> None:
        """Dial with these keys from now on.

        What is dialed already stays, but for what a key let in that is none any more.
        """
        self._keyring.replace(keys)
        for path, dialed in list(self._dialed.items()):
            if dialed.keys[0] not in keys.dialed:
                self._end(path, PathCause.CLOSED)

    def on_monitor(self, key: Path, event: int, value: int) -> None:
        """Take in an event of a connection's monitor."""
        path = self._paths.get(key)
        if path is None:
            return  # said before the socket was closed, heard after
        dialed = self._dialed[path]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            dialed.timer.cancel()
            dialed.is_up = True
            self._keyring.on_worked(str(dialed.endpoint), dialed.keys[0])
            self._news.later(PathUp(path))
        elif dialed.is_up:
            self._end(path, PathCause.CLOSED)
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self._ask_why(path, dialed)
        else:  # connected, and whoever listens there is not one of us
            self._on_failed(path, dialed, event, value)

    def close(self) -> None:
        """Read and report nothing any more."""
        for dialed in self._dialed.values():
            dialed.timer.cancel()
            if dialed.connection is not None:
                dialed.connection.intake.close()
        self._dialed.clear()
        self._paths.clear()

    def _connect(self, path: int, endpoint: Endpoint, server: bytes) -> _Connection:
        socket, key = self._sockets.dealer(self._keyring.keys, server)
        socket.set(zmq.IPV6, int(endpoint.address.version == 6))
        socket.connect(str(endpoint))
        intake = Intake(
            self._loop,
            socket,
            path,
            self._options,
            self._limits,
            self._counters,
            deliver=self._on_packets,
            on_room=partial(self._on_room, path),
        )
        return _Connection(socket, key, intake)

    def _refuse(self, path: int, endpoint: str, reason: str) -> None:
        self._on_trace(Trace("dial_refused", WARNING, {"endpoint": endpoint, "reason": reason}))
        self._news.later(PathDown(path, PathCause.UNREACHABLE))

    def _on_failed(self, path: int, dialed: _Dialed, event: int, value: int) -> None:
        """Find out what it means that a handshake failed.

        Who listens cannot open what was sealed for another key, or wants another mechanism, and
        closes the connection; libzmq tells no more of it than of any other end.
        """
        is_guarded = self._keyring.keys is not None
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == MECHANISM_MISMATCH:
            self._on_wrong_key(path, dialed, _NO_KEY_THERE if is_guarded else _NO_KEY_HERE)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            fields: dict[str, object] = {"endpoint": str(dialed.endpoint), "status": value}
            self._on_trace(Trace("dial_turned_away", WARNING, fields))
            self._end(path, PathCause.UNREACHABLE)
        elif event != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL or value not in _ENDED:
            self._end(path, PathCause.UNREACHABLE)
        elif value == errno.EPIPE and len(dialed.keys) > 1:
            self._try_next_key(path, dialed)
        else:
            seconds_left = self._seconds_left(dialed)
            was_closed = value == errno.EPIPE
            on_greeting = partial(self._on_greeting, path, dialed, was_closed)
            self._probes.ask(dialed.endpoint, seconds_left, on_greeting)

    def _try_next_key(self, path: int, dialed: _Dialed) -> None:
        del dialed.keys[0]
        self._disconnect(dialed)
        try:
            dialed.connection = self._connect(path, dialed.endpoint, dialed.keys[0])
        except zmq.ZMQError as error:
            dialed.timer.cancel()
            del self._dialed[path]
            self._refuse(path, str(dialed.endpoint), f"{error}: raise sockets_max or ulimit -n")
            return
        self._paths[dialed.connection.key] = path
        if dialed.is_full:
            self._on_room(path)

    def _on_wrong_key(self, path: int, dialed: _Dialed, told: str) -> None:
        self._counters.dials_wrong_key += 1
        now = self._loop.time()
        self._auditing.tell(AuditKind.WRONG_KEY, str(dialed.endpoint), told, now)
        self._end(path, PathCause.WRONG_KEY)

    def _ask_why(self, path: int, dialed: _Dialed) -> None:
        # libzmq keeps the errno to itself. It matters: refused means that the process is gone.
        seconds_left = self._seconds_left(dialed)
        self._probes.start(dialed.endpoint, seconds_left, partial(self._on_reason, path, dialed))

    def _seconds_left(self, dialed: _Dialed) -> float:
        """End the dial's connection and timer, so that the probe's own takes over."""
        self._disconnect(dialed)
        dialed.timer.cancel()
        return dialed.timer.when() - self._loop.time()

    def _on_greeting(
        self,
        path: int,
        dialed: _Dialed,
        was_closed: bool,
        cause: PathCause | None,
        mechanism: bytes,
    ) -> None:
        """Take in how who listens greets.

        Where it wants the same mechanism as we, and closed the connection, it has another key. A
        reset is another matter: it was about to end, or shut us out, see `doorkeeper`.
        """
        if self._dialed.get(path) is not dialed:
            return
        is_guarded = self._keyring.keys is not None
        if mechanism == b"CURVE" and not is_guarded:
            self._on_wrong_key(path, dialed, _NO_KEY_HERE)
        elif mechanism == b"NULL" and is_guarded:
            self._on_wrong_key(path, dialed, _NO_KEY_THERE)
        elif mechanism == b"CURVE" and was_closed:
            self._on_wrong_key(path, dialed, _OTHER_KEY_THERE)
        else:
            self._end(path, cause or PathCause.UNREACHABLE)
        self._news.now()

    def _on_reason(self, path: int, dialed: _Dialed, cause: PathCause | None) -> None:
        if self._dialed.get(path) is dialed:
            del self._dialed[path]
            self._news.now(PathDown(path, cause or PathCause.UNREACHABLE))

    def _on_timeout(self, path: int) -> None:
        self._end(path, PathCause.UNREACHABLE)
        self._news.now()

    def _end(self, path: int, cause: PathCause) -> None:
        dialed = self._dialed.pop(path)
        dialed.timer.cancel()
        if dialed.connection is not None:
            packets = dialed.connection.intake.drain()
            if packets:
                self._news.later(PacketsReceived(packets))
        self._disconnect(dialed)
        self._news.later(PathDown(path, cause))

    def _disconnect(self, dialed: _Dialed) -> None:
        connection, dialed.connection = dialed.connection, None
        if connection is not None:
            connection.intake.close()
            del self._paths[connection.key]
            self._sockets.drop(connection.key)

    def _on_packets(self, packets: Packets) -> None:
        self._news.now(PacketsReceived(packets))

    def _on_room(self, path: int) -> None:
        self._dialed[path].is_full = False
        self._news.later(PathWritable(path))
