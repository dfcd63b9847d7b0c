"""The private context and its sockets: made with every option set, closed in the order that works.

Facts about libzmq that these choices rest on are held in `tests/transport/test_libzmq_facts.py`.
"""

import ctypes
import os
import struct
from typing import Final

import zmq

from zmesh.options import TransportOptions, WireLimits
from zmesh.transport.curve import CurveKeys, guard_dialer, guard_listener
from zmesh.transport.held_ports import HeldPorts
from zmesh.transport.process import ThisProcess

LIBZMQ_MIN: Final = (4, 3, 5)
"""Older ones overflow their stack under CURVE, and what we rely on was measured with this one."""

NEVER_MS: Final = 24 * 3600 * 1000
"""As a reconnect interval: longer than any socket lives after its connection ended."""

ENCRYPTED_BYTES: Final = 33
"""What CURVE adds to a part (ZeroMQ RFC 26): the name of a command, flags, a nonce, a MAC."""

# A connect that failed is known by CONNECT_RETRIED: CLOSED is missing where no socket was made.
HANDSHAKE_EVENTS: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
DIAL_EVENTS: Final = HANDSHAKE_EVENTS | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED
LISTENER_EVENTS: Final = (
    HANDSHAKE_EVENTS | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
)

Socket = zmq.Socket[bytes]

_EVENT = struct.Struct("=HI")  # zmq_socket_monitor(3), version 1: event, value


def require_libzmq(found: tuple[int, int, int]) -> None:
    """Raise ImportError where libzmq is too old."""
    if found < LIBZMQ_MIN:
        wanted = ".".join(map(str, LIBZMQ_MIN))
        raise ImportError(
            f"zmesh needs libzmq {wanted} or newer, this is {'.'.join(map(str, found))}: "
            "install pyzmq from its wheel (pip install --upgrade 'pyzmq>=27')"
        )


require_libzmq(zmq.zmq_version_info())


class Sockets:
    """Every ZeroMQ socket of one transport, in a context of their own.

    Monitors of all sockets arrive at one ROUTER, the `ear`: `CONNECT_ROUTING_ID` names each. That
    is one descriptor and one reader in place of one a peer. inproc does not ask for socket types,
    so a ROUTER may hear what a monitor's PAIR says.
    """

    def __init__(self, options: TransportOptions, limits: WireLimits) -> None:
        self._pid = ThisProcess.pid
        self._options = options
        self._limits = limits
        self._context: zmq.Context[Socket] = zmq.Context()
        # Linger 0 for every socket, those libzmq makes itself included: exit waits for nothing.
        self._context.set(zmq.BLOCKY, 0)
        self._context.set(zmq.MAX_SOCKETS, options.sockets_max)
        self._keys = 0
        self._watched: dict[bytes, Socket] = {}
        self.ports = HeldPorts(options.backlog)
        self.ear = self._context.socket(zmq.ROUTER)
        # Bounded, it would block libzmq's I/O thread when full, and with it everything.
        self.ear.set(zmq.RCVHWM, 0)

    @property
    def is_open(self) -> bool:
        """Whether there is something to close, and this process may do it."""
        return ThisProcess.pid == self._pid and not self._context.closed

    def router(self, keys: CurveKeys | None = None) -> tuple[Socket, bytes]:
        """Make the socket peers dial, and return it with its key at the ear.

        With keys it lets in whom the handler admits, see `handler`, and nobody else.

        ROUTER_HANDOVER stays off: our DEALERs leave their routing id to the ROUTER, which gives
        every connection a new one, so a peer that restarted is never ignored. With handover on,
        whoever claimed another's routing id would get its traffic.
        """
        _seed_routing_ids()
        socket = self._make(zmq.ROUTER)
        socket.set(zmq.ROUTER_MANDATORY, 1)  # unroutable raises; else it vanishes silently
        socket.set(zmq.HANDSHAKE_IVL, _ms(self._options.handshake_timeout))
        if keys is not None:
            self._take_encrypted(socket)
            guard_listener(socket, keys)
        return socket, self._watch(socket, LISTENER_EVENTS)

    def dealer(self, keys: CurveKeys | None = None, server: bytes = b"") -> tuple[Socket, bytes]:
        """Make a socket to dial one peer once, and return it with its key at the ear.

        With keys it speaks to nobody but who listens with the server key of this public half.

        libzmq must not reconnect, as the socket is replaced. But neither RECONNECT_IVL=-1 nor
        IMMEDIATE=1: both drop what was received and not yet read when the connection ends, and
        that is where settlements and BYE are.
        """
        socket = self._make(zmq.DEALER)
        socket.set(zmq.RECONNECT_IVL, NEVER_MS)
        if keys is not None:
            self._take_encrypted(socket)
            guard_dialer(socket, keys, server)
        return socket, self._watch(socket, DIAL_EVENTS)

    def handler(self, endpoint: str) -> Socket:
        """Make a socket that answers libzmq itself, bound to an endpoint of the context.

        It must be there before a guarded socket is bound: whoever comes earlier gets no answer.
        """
        self._handler = self._context.socket(zmq.ROUTER)
        self._handler.set(zmq.RCVHWM, 0)  # bounded by the handshakes under way
        self._handler.bind(endpoint)
        return self._handler

    def drop(self, key: bytes) -> None:
        """Close a socket."""
        socket = self._watched[key]
        # In this order: a monitor whose reader is gone blocks the I/O thread for good.
        if not socket.closed:
            socket.monitor(None)
            socket.close()
        del self._watched[key]  # last, so that one who is interrupted before can do it again

    def close(self) -> None:
        """Close all, and wait for libzmq's threads; milliseconds. Idempotent; not after a fork."""
        if not self.is_open:
            return
        for key in tuple(self._watched):
            self.drop(key)
        self._context.destroy()  # the ear, and what an interrupt may have left
        self.ports.close()

    def _make(self, kind: int) -> Socket:
        options = self._options
        socket = self._context.socket(kind)
        socket.set(zmq.MAXMSGSIZE, self._limits.part_bytes_max)
        socket.set(zmq.SNDHWM, options.send_queue_max)
        socket.set(zmq.RCVHWM, options.receive_queue_max)
        # The kernel watches the connection. ZMQ_HEARTBEAT_IVL must stay 0: with ZMTP heartbeats a
        # receiver that stalled aborts its process when it goes on (libzmq#3937).
        socket.set(zmq.TCP_KEEPALIVE, 1)
        socket.set(zmq.TCP_KEEPALIVE_IDLE, int(options.keepalive_idle))
        socket.set(zmq.TCP_KEEPALIVE_INTVL, int(options.keepalive_interval))
        socket.set(zmq.TCP_KEEPALIVE_CNT, options.keepalive_count)
        socket.set(zmq.TCP_MAXRT, _ms(options.unacked_max))
        return socket

    def _take_encrypted(self, socket: Socket) -> None:
        """Let in parts as large as they may be: libzmq measures them as they are encrypted."""
        socket.set(zmq.MAXMSGSIZE, self._limits.part_bytes_max + ENCRYPTED_BYTES)

    def _watch(self, socket: Socket, events: int) -> bytes:
        self._keys += 1
        key = self._keys.to_bytes(8, "big")
        address = f"inproc://monitor-{self._keys}"  # pyzmq would use a descriptor's number again
        try:
            socket.monitor(address, events)
            self.ear.set(zmq.CONNECT_ROUTING_ID, key)
            self.ear.connect(address)
        except zmq.ZMQError:
            socket.close()
            raise
        self._watched[key] = socket
        return key


def read_monitor(parts: list[bytes]) -> tuple[int, int, str]:
    """Return the event that a monitor's message tells of, its value, and the endpoint."""
    event, value = _EVENT.unpack(parts[0])
    return event, value, parts[1].decode("ascii", "replace")


def _seed_routing_ids() -> None:
    """Make the routing ids a ROUTER gives unpredictable.

    It counts them up from C's rand(), which libzmq never seeds: every process would give the same.
    And who claims an id before it is given, makes libzmq abort the process when it is.
    """
    if os.name == "posix":
        ctypes.CDLL(None).srand(ctypes.c_uint(int.from_bytes(os.urandom(4), "big")))


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
