"""At the door of the ROUTER: what its monitor tells of strangers, and shutting out too many.

libzmq accepts whoever comes. What it accepted it tells by descriptor, so that the connection can
be looked at and shut: the rest libzmq does itself.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

import zmq

from zmesh.actions import AuditKind
from zmesh.discovery.endpoints import split_target
from zmesh.ids import Path
from zmesh.options import TransportOptions
from zmesh.transport.auditing import Auditing
from zmesh.transport.counters import Counters
from zmesh.transport.descriptors import descriptors_max
from zmesh.transport.endings import Endings, has_greeted, is_open
from zmesh.transport.gate import EVERYWHERE, Gate, Refusal
from zmesh.transport.outcasts import Outcasts

CRYPTOGRAPHIC: Final = zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC
"""As the value of FAILED_PROTOCOL: what one side sealed the other cannot open."""

MECHANISM_MISMATCH: Final = zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
"""The same: one side wants CURVE and the other does not."""

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing is to throw away what waits, and to leave no TIME_WAIT behind."""


class Doorkeeper:
    """Watches the inbound connections of one ROUTER.

    Args:
        options: the bounds.
        counters: of the transport.
        auditing: is told of wrong keys and floods.
        clock: seconds.
        is_guarded: whether the ROUTER speaks CURVE, and asks `admit`.
    """

    def __init__(
        self,
        options: TransportOptions,
        counters: Counters,
        auditing: Auditing,
        clock: Callable[[], float],
        *,
        is_guarded: bool,
    ) -> None:
        self._counters = counters
        self._auditing = auditing
        self._clock = clock
        self._is_guarded = is_guarded
        self.outcasts = Outcasts(options.outcasts_max, clock, is_guarded=is_guarded)
        self.endings = Endings(options.watched_max)
        self.gate = Gate(options, counts_addresses=is_guarded)
        # libzmq says that a handshake failed right before, in the same call, it says that the
        # connection ended.
        self._failure: tuple[int, int] | None = None

    def on_monitor(self, event: int, value: int, listener: str) -> bool:
        """Take in an event of the monitor; return whether a living connection has ended.

        A probe connects and leaves: it must not make its target probe others.
        """
        if event == zmq.EVENT_DISCONNECTED:
            return self._on_disconnected(value)
        if event == zmq.EVENT_ACCEPTED:
            self._on_accepted(value, listener)
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._counters.handshakes += 1
            self.gate.on_settled()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.gate.on_settled()  # told by `admit`
        elif event == zmq.EVENT_CLOSED:
            self.gate.on_unbound(listener)
            self.endings.close()
        else:
            self._failure = event, value
        return False

    def close(self) -> None:
        """Keep nothing open any more."""
        self.endings.close()

    def admit(self, address: str, key: bytes) -> bool:
        """Return whether who passed CURVE may come in."""
        address = address.partition("%")[0]
        now = self._clock()
        has_room = self.gate.on_admitted(address, now)
        if self.outcasts.holds_key(key):
            self._counters.handshakes_refused += 1  # the engine told why
            return False
        if has_room:
            return True
        self._refuse(address, Refusal.INBOUND, now)
        return False

    def end(self, path: Path, frame: zmq.Frame, listeners: Iterable[str]) -> None:
        """End the connection that a part of a message of an outcast came by, if it is there yet.

        Messages may wait for longer than their connection lives. Its descriptor may then be that
        of another from the same address: its links resume, and it happens once for each path.
        """
        if not self.outcasts.is_to_end(path):
            return
        try:
            descriptor, address = int(frame.get(zmq.SRCFD)), str(frame.get("Peer-Address"))
        except zmq.ZMQError:
            return  # not by TCP
        self.gate.on_shut_out(address, self._clock())
        self._counters.inbound_shut_out += 1
        for listener in listeners:
            self._shut(descriptor, listener, address)

    def _on_accepted(self, descriptor: int, listener: str) -> None:
        self._counters.inbound_accepted += 1
        now, most = self._clock(), descriptors_max()
        connection = _taken(descriptor, listener)
        address = "" if connection is None else _peer_of(connection)
        self._counters.inbound_unseen += not address
        shut = self.gate.on_accepted(descriptor, address, listener, now, most)
        victim = None if shut is None else shut[0]
        if connection is not None:
            self._take_in(descriptor, connection, address, most, is_refused=victim == descriptor)
        if shut is not None:
            victim, address, refusal = shut
            if victim != descriptor:
                self._shut(victim, listener, address)
            self._refuse(address, refusal, now)

    def _take_in(
        self,
        descriptor: int,
        connection: socket.socket,
        address: str,
        descriptors_max: int,
        *,
        is_refused: bool,
    ) -> None:
        """Shut a connection that is refused, and watch how any other ends."""
        self.endings.let_go(descriptor)  # of one that nobody told the end of
        # Where descriptors are scarce they are for those who come, and not to look at ends.
        if address and not is_refused and descriptor < descriptors_max // 2:
            self.endings.watch(descriptor, connection)
            return
        with connection:
            if is_refused:
                _reset(connection)

    def _shut(self, descriptor: int, listener: str, address: str) -> None:
        connection = self.endings.take(descriptor) or _taken(descriptor, listener)
        if connection is not None:
            with connection:
                _shut(connection, address)

    def _on_disconnected(self, descriptor: int) -> bool:
        failure, self._failure = self._failure, None
        is_ours, has_greeted_us = self._how_it_ended(descriptor)
        in_handshake = failure is not None or self.gate.is_unproven(descriptor)
        address = self.gate.on_ended(descriptor, in_handshake=in_handshake)
        if failure is None:
            # Told so are all that announce a part too large, from the first byte on.
            self._counters.handshakes_failed += in_handshake
            self._counters.inbound_ended += not in_handshake
            if is_ours and not in_handshake:
                self._note_broken(address)
            return True
        event, value = failure
        if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            # Who has no key hangs up where it reads that we have one, and mostly before libzmq
            # here reads that it has none.
            is_keyless = self._is_guarded and has_greeted_us
            self._counters.handshakes_failed += is_keyless
            self._counters.handshakes_abandoned += not is_keyless
            return False
        self._counters.handshakes_failed += 1
        detail = self._wrong_key(value)
        if detail:
            self._auditing.tell(AuditKind.WRONG_KEY, address, detail, self._clock())
        return False

    def _how_it_ended(self, descriptor: int) -> tuple[bool, bool]:
        """Return whether libzmq ended a connection, and whether the other did after a greeting.

        As far as that is known.
        """
        connection = self.endings.take(descriptor)
        if connection is None:
            return False, False
        with connection:
            is_ours = is_open(connection)
            return is_ours, not is_ours and has_greeted(connection)

    def _note_broken(self, address: str) -> None:
        self._counters.inbound_broken += 1
        detail = "a connection from there was ended: a part too large, or no ZMTP"
        now = self._clock()
        self._auditing.tell(AuditKind.FLOODED, address, detail, now, "part_bytes_max")

    def _wrong_key(self, value: int) -> str:
        if value == CRYPTOGRAPHIC:
            return "a connection from there was refused: its mesh key is another one"
        if value != MECHANISM_MISMATCH:
            return ""  # another protocol: nobody who would have a key
        if self._is_guarded:
            return "a connection from there was refused: it uses no mesh key, and this node does"
        return "a connection from there failed: it uses a mesh key, and this node has none"

    def _refuse(self, address: str, refusal: Refusal, now: float) -> None:
        self._counters.handshakes_refused += 1
        detail = "connections from there are shut: more at once, or faster, than is allowed"
        self._auditing.tell(AuditKind.FLOODED, address, detail, now, refusal.value)


def _peer_of(connection: socket.socket) -> str:
    """Return the address at the other end of a connection; empty where it is gone."""
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return ""


def _shut(connection: socket.socket, address: str) -> None:
    """Shut a connection, if it is from there."""
    if _peer_of(connection) == address:
        _reset(connection)


def _reset(connection: socket.socket) -> None:
    """Shut a connection, so that its other end is told by a reset."""
    try:
        # libzmq reads the end, and closes it; that tells the other end by a reset, which it
        # can tell from a handshake that failed.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RD)
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EINVAL):
            raise


def _taken(descriptor: int, listener: str) -> socket.socket | None:
    """Return a connection of libzmq, to be closed by the caller; None where it is gone.

    libzmq may have closed the descriptor meanwhile, and anybody in this process may have it by
    now: only what came to our own endpoint is ours.
    """
    place = _place(listener)
    if place is None:
        return None
    host, port = place
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        connection = socket.fromfd(descriptor, family, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        here, here_port, *_ = connection.getsockname()
    except (OSError, ValueError, TypeError):
        connection.close()
        return None
    if here_port == port and (host in EVERYWHERE or host.partition("%")[0] == here):
        return connection
    connection.close()
    return None


@lru_cache(64)
def _place(listener: str) -> tuple[str, int] | None:
    """Return host and port of a listening endpoint; None where libzmq tells of none."""
    try:
        return split_target(listener)
    except ValueError:
        return None
